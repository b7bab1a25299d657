#include "half.h"

#include <cstring>

namespace vmkla {
namespace {

float as_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

uint32_t as_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

}  // namespace

void half_to_float(const uint16_t* from, float* to, size_t count) {
  const float scale = as_float(0x77800000u);  // 2^112: moves half's exponent bias to float's, denormals included
  for (size_t i = 0; i < count; ++i) {
    const uint32_t h = from[i];
    uint32_t bits = as_bits(as_float((h & 0x7fffu) << 13) * scale);
    if ((h & 0x7c00u) == 0x7c00u) bits |= 0x7f800000u;  // infinity, NaN
    to[i] = as_float(bits | (h & 0x8000u) << 16);
  }
}

void float_to_half(const float* from, uint16_t* to, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    const uint32_t bits = as_bits(from[i]);
    const uint32_t sign = bits >> 16 & 0x8000u;
    const uint32_t magnitude = bits & 0x7fffffffu;
    uint32_t h;
    if (magnitude > 0x7f800000u) {
      h = 0x7e00u;  // NaN
    } else if (magnitude >= 0x477ff000u) {
      h = 0x7c00u;  // 65520 and above round to infinity
    } else if (magnitude < 0x38800000u) {
      // Below 2^-14: adding 1/2 aligns the denormal's last bit with float's, and rounds.
      h = as_bits(as_float(magnitude) + 0.5f) - 0x3f000000u;
    } else {
      h = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
    }
    to[i] = static_cast<uint16_t>(sign | h);
  }
}

}  // namespace vmkla
