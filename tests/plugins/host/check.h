// Expectations of plugin_host. A failed one is printed with its place and what was seen; the case goes on.
#pragma once
#include <functional>
#include <iostream>
#include <string>
#include <vector>

namespace host {

struct Case {
  std::string name;
  std::function<void()> run;
};
std::vector<Case>& cases();
int& failures();

struct Registration {
  Registration(const char* name, std::function<void()> run) { cases().push_back({name, std::move(run)}); }
};

template <typename A, typename B>
void expect_equal(const A& seen, const B& expected, const char* what, const char* file, int line) {
  if (seen == expected) return;
  ++failures();
  std::cout << file << ":" << line << ": " << what << " is " << seen << ", expected " << expected << "\n";
}

// Ends the program with status 77: the machine cannot run this case.
[[noreturn]] void skip(const std::string& reason);

}  // namespace host

#define CASE(name)                                                \
  static void case_##name();                                      \
  static const host::Registration registration_##name(#name, case_##name); \
  static void case_##name()
#define EXPECT_EQUAL(seen, expected) host::expect_equal((seen), (expected), #seen, __FILE__, __LINE__)
#define EXPECT(condition) host::expect_equal(static_cast<bool>(condition), true, #condition, __FILE__, __LINE__)
