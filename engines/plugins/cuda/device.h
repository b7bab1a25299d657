// What the CUDA kernels are written with: the GPU's lane type for the shared maths, elements of either type, packs of
// elements that are moved by one access. Compiled by nvcc, and by g++ where the kernels run in emulation.
#pragma once
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "../kernels/math.h"

#if defined(VMKLA_CUDA_EMULATION)
#define VMKLA_DYNAMIC_SHARED(name) unsigned char* const name = emulation::shared_memory()
#define VMKLA_CHECK_ALIGNED(pointer, bytes) emulation::check_aligned(pointer, bytes)
#define VMKLA_UNROLL
#define VMKLA_KEEP_LOOP
#else
#define VMKLA_DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#define VMKLA_CHECK_ALIGNED(pointer, bytes)
#define VMKLA_UNROLL _Pragma("unroll")
#define VMKLA_KEEP_LOOP _Pragma("unroll 1")
#endif

namespace vmkla {
namespace cuda {

// One lane a thread.
struct DeviceLane {
  using V = float;
  static __device__ __forceinline__ float set(float v) { return v; }
  static __device__ __forceinline__ float fma(float a, float b, float c) { return fmaf(a, b, c); }
  static __device__ __forceinline__ float max(float a, float b) { return a > b ? a : b; }  // a NaN b stays one
  static __device__ __forceinline__ float abs(float v) { return fabsf(v); }
};

// 2^x by the special-function unit: relative error at most 2^-22, 1 exactly at 0, 0 where the result would be
// subnormal. The errors of the decays of one state add up over the steps it remembers, as do the roundings of the
// products (2^-24 each): both stay far below a rounding of y to half, and below 1e-4 of y in float.
VMKLA_HD float exp2_approximate(float x) {
#if defined(VMKLA_CUDA_EMULATION)
  return emulation::exp2_approximate(x);
#elif defined(__CUDA_ARCH__)
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return exp2f(x);
#endif
}

// a / b with a relative error of at most 2 ulp for b up to 2^126; the kernels' divisors are between 2 and 3.
VMKLA_HD float divide_approximate(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fdividef(a, b);
#else
  return a / b;
#endif
}

inline __device__ float to_float(float v) { return v; }
inline __device__ float to_float(__half v) { return __half2float(v); }
template <class E>
__device__ E from_float(float v);
template <>
inline __device__ float from_float<float>(float v) { return v; }
template <>
inline __device__ __half from_float<__half>(float v) { return __float2half_rn(v); }

// Neighbouring elements, moved by one access of at most 16 bytes.
template <class E, int kCount>
struct alignas(sizeof(E) * kCount) Pack {
  static_assert(sizeof(E) * kCount <= 16, "wider than the widest access");
  E v[kCount];
};

template <class E, int kCount>
__device__ __forceinline__ Pack<E, kCount> load_pack(const E* from) {
  VMKLA_CHECK_ALIGNED(from, sizeof(E) * kCount);
  return *reinterpret_cast<const Pack<E, kCount>*>(from);
}

template <class E, int kCount>
__device__ __forceinline__ void store_pack(E* to, const Pack<E, kCount>& pack) {
  VMKLA_CHECK_ALIGNED(to, sizeof(E) * kCount);
  *reinterpret_cast<Pack<E, kCount>*>(to) = pack;
}

// Elements that fit into 16 bytes.
template <class E>
constexpr int kWidest = 16 / static_cast<int>(sizeof(E));

}  // namespace cuda

namespace VMKLA_KERNELS_NAMESPACE {

template <>
VMKLA_HD float exp2<cuda::DeviceLane>(float x) {
  return cuda::exp2_approximate(x);
}

template <>
VMKLA_HD float divide<cuda::DeviceLane>(float a, float b) {
  return cuda::divide_approximate(a, b);
}

}  // namespace VMKLA_KERNELS_NAMESPACE
}  // namespace vmkla
