// IEEE half precision, stored as 16 bits; converted by the project's own portable routines.
#pragma once
#include "../../cpu/half.h"

struct __half {
  uint16_t bits;
};

inline float __half2float(__half value) {
  float wide;
  vmkla::half_to_float(&value.bits, &wide, 1);
  return wide;
}

inline __half __float2half_rn(float value) {
  __half narrow;
  vmkla::float_to_half(&value, &narrow.bits, 1);
  return narrow;
}
