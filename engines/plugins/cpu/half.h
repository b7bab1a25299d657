// float16 <-> float32 without hardware support; the kernels compute in float32 whatever the tensors hold.
#pragma once
#include <cstddef>
#include <cstdint>

namespace vmkla {
void half_to_float(const uint16_t* from, float* to, size_t count);
void float_to_half(const float* from, uint16_t* to, size_t count);  // to nearest, ties to even
}  // namespace vmkla
