#include "host_reference.h"

#include <algorithm>
#include <cmath>

namespace vmkla {
namespace harness {
namespace {

// log(1 + e^z).
double softplus(double z) { return std::max(z, 0.0) + std::log1p(std::exp(-std::abs(z))); }

// Pixel numbers in the order in which route k visits them: along the rows, down the columns, and both backwards.
std::vector<int64_t> visits(int k, int64_t H, int64_t W) {
  std::vector<int64_t> order;
  if (k % 2 == 0) {
    for (int64_t i = 0; i < H; ++i) {
      for (int64_t j = 0; j < W; ++j) order.push_back(i * W + j);
    }
  } else {
    for (int64_t j = 0; j < W; ++j) {
      for (int64_t i = 0; i < H; ++i) order.push_back(i * W + j);
    }
  }
  if (k >= 2) std::reverse(order.begin(), order.end());
  return order;
}

}  // namespace

std::vector<double> scan_reference(const ScanShape& s, const ScanInputs& in) {
  std::vector<double> y(static_cast<size_t>(s.b * s.pixels() * s.d));
  for (size_t i = 0; i < y.size(); ++i) y[i] = static_cast<double>(in.D[i % s.d]) * in.u[i];
  std::vector<double> h(static_cast<size_t>(s.n));
  for (int k = 0; k < 4; ++k) {
    const std::vector<int64_t> order = visits(k, s.H, s.W);
    for (int64_t image = 0; image < s.b; ++image) {
      for (int64_t c = 0; c < s.d; ++c) {
        std::fill(h.begin(), h.end(), 0.0);
        for (const int64_t pixel : order) {
          const int64_t at = (image * s.pixels() + pixel) * s.d + c;
          const float* p = in.p.data() + (image * s.pixels() + pixel) * s.width();
          const float *B = p + k * s.n, *C = p + (4 + k) * s.n, *dt = p + 8 * s.n + k * s.R;
          double z = in.delta_bias[k * s.d + c];
          for (int64_t r = 0; r < s.R; ++r) z += static_cast<double>(dt[r]) * in.dt_weight[(k * s.R + r) * s.d + c];
          const double delta = softplus(z);
          double sum = 0.0;
          for (int64_t j = 0; j < s.n; ++j) {
            h[j] = std::exp(delta * in.A[(k * s.n + j) * s.d + c]) * h[j] + delta * in.u[at] * B[j];
            sum += h[j] * C[j];
          }
          y[at] += sum;
        }
      }
    }
  }
  return y;
}

std::vector<double> basis_reference(const std::vector<float>& x, const std::vector<double>& t, int64_t order) {
  const int64_t knots = static_cast<int64_t>(t.size());
  const int64_t bases = knots - order - 1;
  std::vector<double> out;
  std::vector<double> N(t.size());
  for (const float value : x) {
    const double v = std::min(std::max(static_cast<double>(value), t.front()), t.back());
    for (int64_t i = 0; i + 1 < knots; ++i) N[i] = v >= t[i] && v < t[i + 1] ? 1.0 : 0.0;
    for (int64_t k = 1; k <= order; ++k) {
      for (int64_t i = 0; i + k + 1 < knots; ++i) {
        const double rising = (v - t[i]) / (t[i + k] - t[i]);
        const double falling = (t[i + k + 1] - v) / (t[i + k + 1] - t[i + 1]);
        N[i] = rising * N[i] + falling * N[i + 1];
      }
    }
    out.insert(out.end(), N.begin(), N.begin() + bases);
  }
  return out;
}

}  // namespace harness
}  // namespace vmkla
