// plugin_host LIBRARY CASE: drives the compiled plugin library through TensorRT's interfaces, as TensorRT would.
// plugin_host LIBRARY --enqueue ...: see run_enqueue.h. plugin_host --list: the names of the cases.
// Status: 0 all expectations hold, 1 some do not, 77 cannot run here.
#include <cstdlib>

#include "check.h"
#include "library.h"
#include "run_enqueue.h"

namespace host {

std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}

int& failures() {
  static int count = 0;
  return count;
}

void skip(const std::string& reason) {
  std::cout << reason << "\n";
  std::exit(77);
}

}  // namespace host

int main(int count, char** arguments) {
  if (count == 2 && std::string(arguments[1]) == "--list") {
    for (const host::Case& one : host::cases()) std::cout << one.name << "\n";
    return 0;
  }
  if (count < 3) {
    std::cerr << "usage: plugin_host LIBRARY CASE | LIBRARY --enqueue ... | --list\n";
    return 2;
  }
  host::library_path() = arguments[1];
  if (std::string(arguments[2]) == "--enqueue") {
    host::run_enqueue({arguments + 3, arguments + count});
    return host::failures() == 0 ? 0 : 1;
  }
  for (const host::Case& one : host::cases()) {
    if (one.name != arguments[2]) continue;
    one.run();
    return host::failures() == 0 ? 0 : 1;
  }
  std::cerr << "there is no case " << arguments[2] << "\n";
  return 2;
}
