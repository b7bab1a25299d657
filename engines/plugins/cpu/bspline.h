// B-spline bases and their gradient over a range of values. Included once per instruction set by isa_kernels.cpp.
#pragma once
#include <cstdlib>
#include <cstring>

#include "../kernels/bspline_basis.h"
#include "isa.h"
#include "simd.h"

namespace vmkla {
namespace VMKLA_KERNELS_NAMESPACE {

VMKLA_HD float position(const BSplineF32& a, float x) {
  const float s = (x - a.grid_min) / a.grid_step;
  const float last = static_cast<float>(a.knots - 1);
  return s < 0.0f ? 0.0f : (s > last ? last : s);  // a NaN stays one
}

VMKLA_HD bool is_uniform_cubic(const BSplineF32& a) { return a.order == 3 && a.grid_step > 0.0f && a.rows == 1; }

// Uniform cubic bases of a few neighbouring values at once. Eight bases a value (five cells, the usual KAN) fill vectors
// of 4, 8 or 16 lanes evenly; any other count takes one value at a time and leaves lanes unused.
struct BasisLanes {
  int64_t values;      // values in one vector
  Lanes::V numbers{};  // of the basis in each lane

  explicit BasisLanes(int64_t bases) : values(bases == 8 && kLanes == 16 ? 2 : 1) {
    for (int i = 0; i < kLanes; ++i) numbers[i] = static_cast<float>(values == 2 ? i % 8 : i);
  }
  // The position s of each lane's value.
  VMKLA_HD Lanes::V positions(const BSplineF32& a, const float* x) const {
    const Lanes::V first = Lanes::set(position(a, x[0]));
    if (values == 1) return first;
    Lanes::I second_half{};
    for (int i = kLanes / 2; i < kLanes; ++i) second_half[i] = -1;
    return Lanes::select(second_half, Lanes::set(position(a, x[1])), first);
  }
};

static void uniform_cubic_forward(const BSplineF32& a, int64_t begin, int64_t end) {
  const int64_t bases = a.knots - a.order - 1;
  const BasisLanes lanes(bases);
  int64_t i = begin;
  if (lanes.values * bases == kLanes) {  // one full vector a round
    for (; i + lanes.values <= end; i += lanes.values) {
      Lanes::store(a.out + i * bases, cubic_basis<Lanes>(lanes.positions(a, a.x + i), lanes.numbers));
    }
  }
  const Lanes::V counting = BasisLanes(0).numbers;
  for (; i < end; ++i) {
    const Lanes::V s = Lanes::set(position(a, a.x[i]));
    for (int64_t j = 0; j < bases; j += kLanes) {
      const Lanes::V numbers = counting + Lanes::set(static_cast<float>(j));
      Lanes::store(a.out + i * bases + j, cubic_basis<Lanes>(s, numbers), bases - j);
    }
  }
}

static void uniform_cubic_backward(const BSplineF32& a, int64_t begin, int64_t end) {
  const int64_t bases = a.knots - a.order - 1;
  const BasisLanes lanes(bases);
  const float scale = 1.0f / a.grid_step;
  int64_t i = begin;
  if (bases <= 8 && lanes.values * bases == kLanes) {  // sum_eights adds eight lanes at most
    for (; i + lanes.values <= end; i += lanes.values) {
      const Lanes::V slope = cubic_basis_slope<Lanes>(lanes.positions(a, a.x + i), lanes.numbers);
      const Lanes::V sums = Lanes::sum_eights(slope * Lanes::load(a.grad_out + i * bases));
      a.grad_x[i] = sums[0] * scale;
      if (lanes.values == 2) a.grad_x[i + 1] = sums[kLanes / 2] * scale;
    }
  }
  const Lanes::V counting = BasisLanes(0).numbers;
  for (; i < end; ++i) {
    const Lanes::V s = Lanes::set(position(a, a.x[i]));
    Lanes::V total{};
    for (int64_t j = 0; j < bases; j += kLanes) {
      const Lanes::V slope = cubic_basis_slope<Lanes>(s, counting + Lanes::set(static_cast<float>(j)));
      total = Lanes::fma(slope, Lanes::load(a.grad_out + i * bases + j, bases - j), total);
    }
    a.grad_x[i] = Lanes::sum(total) * scale;
  }
}

static void bspline_forward(const BSplineF32& a, int64_t begin, int64_t end) {
  if (is_uniform_cubic(a)) return uniform_cubic_forward(a, begin, end);
  const int64_t bases = a.knots - a.order - 1;
  float* work = static_cast<float*>(allocate(static_cast<size_t>(a.knots) * sizeof(float)));
  for (int64_t i = begin; i < end; ++i) {
    cox_de_boor(a.x[i], a.grid + (a.rows > 1 ? i % a.rows * a.knots : 0), a.knots, a.order, work, nullptr);
    std::memcpy(a.out + i * bases, work, static_cast<size_t>(bases) * sizeof(float));
  }
  std::free(work);
}

static void bspline_backward(const BSplineF32& a, int64_t begin, int64_t end) {
  if (is_uniform_cubic(a)) return uniform_cubic_backward(a, begin, end);
  const int64_t bases = a.knots - a.order - 1;
  float* work = static_cast<float*>(allocate(2 * static_cast<size_t>(a.knots) * sizeof(float)));
  float* slopes = work + a.knots;
  for (int64_t i = begin; i < end; ++i) {
    cox_de_boor(a.x[i], a.grid + (a.rows > 1 ? i % a.rows * a.knots : 0), a.knots, a.order, work, slopes);
    float total = 0.0f;
    for (int64_t j = 0; j < bases; ++j) total += slopes[j] * a.grad_out[i * bases + j];
    a.grad_x[i] = total;
  }
  std::free(work);
}

}  // namespace VMKLA_KERNELS_NAMESPACE
}  // namespace vmkla
