// Elementary functions of the kernels, written once over a lane type: float on a GPU (one lane a thread) or in plain
// C++, a SIMD vector on a CPU. Compiled by g++ and nvcc alike.
//
// A lane type may have its own exp2_in_range, exp2 and divide (a specialisation of the templates below): the GPU's and
// AVX2's have.
//
// A lane type L gives: L::V (the value), set, fma, max (a NaN as the second argument stays one), abs, round (to nearest), scale2 (v 2^n),
// clamp_exponent (to what scale2 can take), negate_where_negative, select.
#pragma once

#if defined(__CUDACC__)
#define VMKLA_HD __host__ __device__ __forceinline__
#else
#define VMKLA_HD inline __attribute__((always_inline))
#endif

// The CPU library compiles these headers once per instruction set; the namespace keeps the copies apart
// (the linker would otherwise merge them and run AVX-512 code where there is none).
#ifndef VMKLA_KERNELS_NAMESPACE
#define VMKLA_KERNELS_NAMESPACE kernels
#endif

namespace vmkla {
namespace VMKLA_KERNELS_NAMESPACE {

constexpr float kLog2E = 1.4426950408889634f;

// 2^x for x in [-126, 127). Polynomial of degree 5 on [-1/2, 1/2], relative error below 1e-7, with p(0) = 1 exactly: a
// decay close to 1, which a scan multiplies thousands of times, has next to no error.
template <class L>
VMKLA_HD typename L::V exp2_in_range(typename L::V x) {
  using V = typename L::V;
  const V n = L::round(x);
  const V f = x - n;
  V q = L::fma(f, L::set(0.0013352608075365424f), L::set(0.0096718929708004f));
  q = L::fma(q, f, L::set(0.05550449341535568f));
  q = L::fma(q, f, L::set(0.2402222901582718f));
  q = L::fma(q, f, L::set(0.6931472420692444f));
  q = L::fma(q, f, L::set(1.0f));
  return L::scale2(q, n);
}

// 2^x for x < 127. Far below -126, the result is 0 or 2^-126.
template <class L>
VMKLA_HD typename L::V exp2(typename L::V x) {
  return exp2_in_range<L>(L::clamp_exponent(x));
}

template <class L>
VMKLA_HD typename L::V divide(typename L::V a, typename L::V b) {
  return a / b;
}

// softplus(z) = max(z, 0) + log1p(exp(-|z|)), by 2 atanh(t / (2 + t)): relative error stays small where the result is
// small (a delta of 1e-6), and a large z passes through as it is.
template <class L>
VMKLA_HD typename L::V softplus(typename L::V z) {
  using V = typename L::V;
  const V t = exp2<L>(L::abs(z) * L::set(-kLog2E));
  const V s = divide<L>(t, t + L::set(2.0f));
  const V w = s * s;
  V q = L::fma(w, L::set(0.13766582310199738f), L::set(0.14054614305496216f));
  q = L::fma(q, w, L::set(0.20007240772247314f));
  q = L::fma(q, w, L::set(0.33333268761634827f));
  q = L::fma(q, w, L::set(1.0f));
  return L::fma(s + s, q, L::max(L::set(0.0f), z));
}

// The slope of softplus where its value is delta: 1 - exp(-delta), by its series where the difference would cancel.
template <class L>
VMKLA_HD typename L::V softplus_slope(typename L::V delta) {
  using V = typename L::V;
  const V direct = L::set(1.0f) - exp2<L>(delta * L::set(-kLog2E));
  V series = L::fma(delta, L::set(-1.0f / 24.0f), L::set(1.0f / 6.0f));
  series = L::fma(delta, L::set(0.0f) - series, L::set(0.5f));
  series = delta * L::fma(delta, L::set(0.0f) - series, L::set(1.0f));
  return L::select(delta < L::set(0.03f), series, direct);
}

}  // namespace VMKLA_KERNELS_NAMESPACE
}  // namespace vmkla
