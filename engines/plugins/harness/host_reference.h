// The two ops on the host in float64, written from their definitions and not from the kernels.
#pragma once
#include <cstdint>
#include <vector>

namespace vmkla {
namespace harness {

struct ScanShape {
  int64_t b, H, W, d, n, R;
  int64_t pixels() const { return H * W; }
  int64_t width() const { return 4 * (2 * n + R); }
};

// Inputs of selective_scan2d as vmkla/ops/scan.py has them.
struct ScanInputs {
  std::vector<float> u, p, dt_weight, A, D, delta_bias;
};

// y (b, H, W, d).
std::vector<double> scan_reference(const ScanShape& shape, const ScanInputs& inputs);

// Bases (count, knots - order - 1); definition: vmkla/ops/bspline.py.
std::vector<double> basis_reference(const std::vector<float>& x, const std::vector<double>& knots, int64_t order);

}  // namespace harness
}  // namespace vmkla
