// The arithmetic and the visiting order of selective_scan2d: what every host (CPU library, ONNX Runtime op, CUDA kernel)
// shares. Definition: vmkla/ops/scan.py; Gu & Dao, Mamba, 2023, alg. 2; Liu et al., VMamba, 2024, sec. 4.
#pragma once
#include <cstdint>

#include "math.h"

namespace vmkla {
namespace VMKLA_KERNELS_NAMESPACE {

constexpr int kRoutes = 4;

// Route k visits pixels row-major (0), column-major (1), or either reversed (2, 3).
struct Route {
  int64_t outer, inner;           // lengths of the slow and the fast axis
  int64_t outer_step, inner_step; // in pixels
  int64_t first;                  // pixel number of the first visit

  VMKLA_HD static Route of(int k, int64_t H, int64_t W) {
    Route r = (k & 1) ? Route{W, H, 1, W, 0} : Route{H, W, W, 1, 0};
    if (k >= 2) {
      r.first = H * W - 1;
      r.outer_step = -r.outer_step;
      r.inner_step = -r.inner_step;
    }
    return r;
  }
};

// Where route k's channels begin in a pixel of p: [B 4 x n | C 4 x n | dt 4 x R].
struct Channels {
  int64_t B, C, dt, width;
  VMKLA_HD static Channels of(int k, int64_t n, int64_t R) {
    return Channels{k * n, (kRoutes + k) * n, 2 * kRoutes * n + k * R, kRoutes * (2 * n + R)};
  }
};

// One state: h <- exp(delta A) h + (delta u) B. A is given times log2(e). kInRange: delta A_log2e is known
// to be at least -126.
template <class L, bool kInRange = false>
VMKLA_HD typename L::V next_state(typename L::V h, typename L::V delta, typename L::V A_log2e, typename L::V delta_u,
                                  typename L::V B) {
  const typename L::V exponent = delta * A_log2e;
  if constexpr (kInRange) {  // a lane type with its own exp2 need not have what exp2_in_range takes
    return L::fma(exp2_in_range<L>(exponent), h, delta_u * B);
  } else {
    return L::fma(exp2<L>(exponent), h, delta_u * B);
  }
}

}  // namespace VMKLA_KERNELS_NAMESPACE
}  // namespace vmkla
