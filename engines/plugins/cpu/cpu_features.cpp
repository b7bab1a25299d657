// What the CPU has and the system lets programs use, by the names of Linux's /proc/cpuinfo.
#include <cstdint>
#include <string>

#include "torch_api.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace {

#if defined(__x86_64__)
enum Register { kEax, kEbx, kEcx, kEdx };

struct Feature {
  const char* name;
  uint32_t leaf, subleaf;
  Register part;
  int bit;
  uint64_t state;  // what the system must save and restore: bits of XCR0
};

constexpr uint64_t kSse = 0, kAvx = 0x6, kAvx512 = 0xE6, kAmx = 0x60000;

// Intel, "Software Developer's Manual", vol. 2, CPUID.
constexpr Feature kFeatures[] = {
    {"sse4_2", 1, 0, kEcx, 20, kSse},          {"avx", 1, 0, kEcx, 28, kAvx},
    {"fma", 1, 0, kEcx, 12, kAvx},             {"f16c", 1, 0, kEcx, 29, kAvx},
    {"avx2", 7, 0, kEbx, 5, kAvx},             {"avx512f", 7, 0, kEbx, 16, kAvx512},
    {"avx512dq", 7, 0, kEbx, 17, kAvx512},     {"avx512bw", 7, 0, kEbx, 30, kAvx512},
    {"avx512vl", 7, 0, kEbx, 31, kAvx512},     {"avx512_vnni", 7, 0, kEcx, 11, kAvx512},
    {"avx512_bf16", 7, 1, kEax, 5, kAvx512},   {"avx512_fp16", 7, 0, kEdx, 23, kAvx512},
    {"avx_vnni", 7, 1, kEax, 4, kAvx},         {"amx_tile", 7, 0, kEdx, 24, kAmx},
    {"amx_bf16", 7, 0, kEdx, 22, kAmx},        {"amx_int8", 7, 0, kEdx, 25, kAmx},
};

uint64_t saved_state() {
  uint32_t a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d) || (c >> 27 & 1) == 0) return 0;  // no XGETBV
  uint32_t low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<uint64_t>(high) << 32 | low;
}

std::string features() {
  const uint64_t state = saved_state();
  std::string names;
  for (const Feature& feature : kFeatures) {
    uint32_t parts[4] = {};
    if (!__get_cpuid_count(feature.leaf, feature.subleaf, &parts[0], &parts[1], &parts[2], &parts[3])) continue;
    if ((parts[feature.part] >> feature.bit & 1) == 0 || (state & feature.state) != feature.state) continue;
    names += names.empty() ? "" : " ";
    names += feature.name;
  }
  return names;
}
#else
std::string features() { return ""; }
#endif

}  // namespace

VMKLA_API const char* vmkla_cpu_features() {
  static const std::string names = features();
  return names.c_str();
}
