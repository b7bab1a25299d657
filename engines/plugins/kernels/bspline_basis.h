// The arithmetic of bspline_basis. Definition: vmkla/ops/bspline.py; de Boor, A Practical Guide to Splines, ch. IX.
#pragma once
#include <cstdint>

#include "math.h"

namespace vmkla {
namespace VMKLA_KERNELS_NAMESPACE {

// Cubic basis j on uniform knots, at s = (x - first knot) / step: the cardinal B-spline centred on knot j + 2, in the
// truncated-power form, 0 by itself outside its support.
template <class L>
VMKLA_HD typename L::V cubic_basis(typename L::V s, typename L::V j) {
  using V = typename L::V;
  const V distance = L::abs(s - (j + L::set(2.0f)));
  const V outer = L::max(L::set(0.0f), L::set(2.0f) - distance);
  const V inner = L::max(L::set(0.0f), L::set(1.0f) - distance);
  return (outer * outer * outer - L::set(4.0f) * (inner * inner * inner)) * L::set(1.0f / 6.0f);
}

// Its derivative with respect to s.
template <class L>
VMKLA_HD typename L::V cubic_basis_slope(typename L::V s, typename L::V j) {
  using V = typename L::V;
  const V offset = s - (j + L::set(2.0f));
  const V distance = L::abs(offset);
  const V outer = L::max(L::set(0.0f), L::set(2.0f) - distance);
  const V inner = L::max(L::set(0.0f), L::set(1.0f) - distance);
  const V magnitude = L::set(2.0f) * inner * inner - L::set(0.5f) * outer * outer;
  return L::negate_where_negative(magnitude, offset);
}

// All `knots - order - 1` bases of x for any knots and order, by the Cox-de Boor recursion. `bases` has room for
// `knots - 1` values; on return the first `knots - order - 1` are the result. With `slopes` (same room) not null, it
// gets their derivatives. x is clamped to the support; outside it every slope is 0.
VMKLA_HD void cox_de_boor(float x, const float* t, int64_t knots, int64_t order, float* bases, float* slopes) {
  const float first = t[0], last = t[knots - 1];
  const bool inside = x >= first && x <= last;
  const float v = x < first ? first : (x > last ? last : x);
  for (int64_t i = 0; i + 1 < knots; ++i) bases[i] = (v >= t[i] && v < t[i + 1]) ? 1.0f : 0.0f;
  for (int64_t k = 1; k <= order; ++k) {
    const int64_t count = knots - 1 - k;
    if (k == order && slopes != nullptr) {
      for (int64_t i = 0; i < count; ++i) {
        slopes[i] = inside ? order * (bases[i] / (t[i + k] - t[i]) - bases[i + 1] / (t[i + k + 1] - t[i + 1])) : 0.0f;
      }
    }
    for (int64_t i = 0; i < count; ++i) {
      bases[i] = (v - t[i]) / (t[i + k] - t[i]) * bases[i] + (t[i + k + 1] - v) / (t[i + k + 1] - t[i + 1]) * bases[i + 1];
    }
  }
}

}  // namespace VMKLA_KERNELS_NAMESPACE
}  // namespace vmkla
