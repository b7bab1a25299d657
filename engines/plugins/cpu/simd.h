// The widest float vector of the instruction set that this file is compiled for, as a lane type for kernels/math.h.
// GCC's vector extension carries the arithmetic; intrinsics only where one instruction replaces several.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#if defined(__AVX512F__)
#include <immintrin.h>
#elif defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "../kernels/math.h"

#if defined(__x86_64__)
#define VMKLA_IN_REGISTER(v) "+x"(v)
#elif defined(__aarch64__)
#define VMKLA_IN_REGISTER(v) "+w"(v)
#else
#define VMKLA_IN_REGISTER(v) "+m"(v)
#endif

namespace vmkla {
namespace VMKLA_KERNELS_NAMESPACE {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

struct Lanes {
  typedef float V __attribute__((vector_size(kLanes * 4)));
  typedef int32_t I __attribute__((vector_size(kLanes * 4)));

  VMKLA_HD static V set(float x) { return x - V{}; }  // a broadcast; adding 0 would have to keep -0 in mind
  VMKLA_HD static V load(const float* p) {
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
  }
  VMKLA_HD static void store(float* p, V v) { std::memcpy(p, &v, sizeof v); }
  VMKLA_HD static V bits(I i) { return reinterpret_cast<V>(i); }
  VMKLA_HD static I bits(V v) { return reinterpret_cast<I>(v); }

  // -ffp-contract=fast, set for these files, turns this into one instruction where the set has it.
  VMKLA_HD static V fma(V a, V b, V c) { return a * b + c; }
  VMKLA_HD static V abs(V v) { return bits(bits(v) & 0x7fffffff); }
  VMKLA_HD static V select(I mask, V where_set, V elsewhere) {
    return bits((bits(where_set) & mask) | (bits(elsewhere) & ~mask));
  }
  VMKLA_HD static V negate_where_negative(V v, V sign) { return bits(bits(v) ^ (bits(sign) & INT32_MIN)); }

#if defined(__AVX512F__)
  VMKLA_HD static V max(V a, V b) { return V(_mm512_max_ps(__m512(a), __m512(b))); }
  VMKLA_HD static V round(V v) { return V(_mm512_roundscale_ps(__m512(v), 0)); }
  VMKLA_HD static V scale2(V v, V n) { return V(_mm512_scalef_ps(__m512(v), __m512(n))); }
  static constexpr bool kSaturates = true;  // scale2 of any exponent
  VMKLA_HD static V clamp_exponent(V v) { return v; }
  VMKLA_HD static float sum(V v) { return _mm512_reduce_add_ps(__m512(v)); }
#else
#if defined(__AVX2__)
  VMKLA_HD static V max(V a, V b) { return V(_mm256_max_ps(__m256(a), __m256(b))); }
#elif defined(__x86_64__)
  VMKLA_HD static V max(V a, V b) { return V(_mm_max_ps(__m128(a), __m128(b))); }
#elif defined(__aarch64__)
  VMKLA_HD static V max(V a, V b) { return V(vmaxq_f32(float32x4_t(a), float32x4_t(b))); }
#else
  VMKLA_HD static V max(V a, V b) {
    const I mask = a > b;
    return bits((bits(a) & mask) | (bits(b) & ~mask));
  }
#endif
  // Adding 1.5 * 2^23 leaves the nearest integer in the low bits. The barrier keeps the compiler from folding it away.
  VMKLA_HD static V round(V v) {
    V shifted = v + 12582912.0f;
    asm("" : VMKLA_IN_REGISTER(shifted));
    return shifted - 12582912.0f;
  }
  // v 2^n for integral n in [-126, 127], v in [1/2, 2].
  VMKLA_HD static V scale2(V v, V n) { return bits(bits(v) + (__builtin_convertvector(n, I) << 23)); }
  static constexpr bool kSaturates = false;
  VMKLA_HD static V clamp_exponent(V v) { return max(set(-126.0f), v); }
  VMKLA_HD static float sum(V v) {
    float total = 0.0f;
    for (int i = 0; i < kLanes; ++i) total += v[i];
    return total;
  }
#endif

  VMKLA_HD static bool all(I mask) {
    bool all = true;
    for (int i = 0; i < kLanes; ++i) all &= mask[i] != 0;
    return all;
  }

  // Every aligned run of eight lanes (all of them where there are fewer) becomes its sum.
  VMKLA_HD static V sum_eights(V v) {
    for (int step = kLanes < 8 ? kLanes / 2 : 4; step > 0; step /= 2) {
      I partner{};
      for (int i = 0; i < kLanes; ++i) partner[i] = i ^ step;
      v += __builtin_shuffle(v, partner);
    }
    return v;
  }

  // The first `count` lanes from memory, the rest 0; and back.
  VMKLA_HD static V load(const float* p, int64_t count) {
    if (count >= kLanes) return load(p);
    V v{};
    std::memcpy(&v, p, static_cast<size_t>(count) * sizeof(float));
    return v;
  }
  VMKLA_HD static void store(float* p, V v, int64_t count) {
    if (count >= kLanes) return store(p, v);
    std::memcpy(p, &v, static_cast<size_t>(count) * sizeof(float));
  }
};

#if defined(__AVX2__) && !defined(__AVX512F__)
// Eighths in place of integers: a polynomial of degree 3 on [-1/16, 1/16] has relative error 3e-8, one permutation
// looks 2^(i/8) up, and the scan gets 13 instructions per state where it had 16. p(0) = 1 exactly, as in the general one.
template <>
VMKLA_HD Lanes::V exp2_in_range<Lanes>(Lanes::V x) {
  using V = Lanes::V;
  using I = Lanes::I;
  // The sum of the bits below adds i / 8 to the exponent, which is taken off here.
  const V eighths = {1.0f, 1.0905077f, 1.1892071f, 1.2968396f, 1.4142135f, 1.5422108f, 1.6817929f, 1.8340081f};
  const I table = Lanes::bits(eighths) - (I{0, 1, 2, 3, 4, 5, 6, 7} << 20);
  V shifted = x + 1572864.0f;  // 1.5 * 2^20 leaves the nearest eighth in the low bits
  asm("" : VMKLA_IN_REGISTER(shifted));
  const V f = x - (shifted - 1572864.0f);
  V q = Lanes::fma(f, Lanes::set(0.0554962232708931f), Lanes::set(0.2402576357126236f));
  q = Lanes::fma(q, f, Lanes::set(0.6931472420692444f));
  q = Lanes::fma(q, f, Lanes::set(1.0f));
  const I power = I(_mm256_permutevar8x32_epi32(__m256i(table), __m256i(shifted)));
  return q * Lanes::bits(power + (Lanes::bits(shifted) << 20));
}
#endif

// Working memory of a task, aligned for vectors; free() returns it. A task has no way to report an error to its host, and
// going on without memory would write a wrong mask or none: it ends the process and says why.
inline __attribute__((noinline)) void* allocate(size_t bytes) {
  void* memory = std::aligned_alloc(64, (bytes + 127) / 64 * 64);
  if (memory == nullptr) {
    std::fprintf(stderr, "vmkla: out of memory: a kernel needs %zu more bytes\n", bytes);
    std::abort();
  }
  return memory;
}

// A decaying state ends in denormal numbers, on which arithmetic is a hundred times slower: flush them to zero while a
// task runs, and leave the thread as it was.
class FlushDenormals {
 public:
#if defined(__x86_64__)
  FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040); }
  ~FlushDenormals() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
  FlushDenormals() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" ::"r"(saved_ | (uint64_t{1} << 24)));
  }
  ~FlushDenormals() { asm volatile("msr fpcr, %0" ::"r"(saved_)); }

 private:
  uint64_t saved_;
#else
  FlushDenormals() {}
#endif
};

}  // namespace VMKLA_KERNELS_NAMESPACE
}  // namespace vmkla
