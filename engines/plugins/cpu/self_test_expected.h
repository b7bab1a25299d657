// What the self-test expects, in double and as plain as the definitions: one step per pixel, one recursion per basis.
// Nothing is shared with the kernels. Definitions: vmkla/ops/scan.py, vmkla/ops/bspline.py.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace self_test {

// The same numbers on every machine: the standard's distributions may differ from library to library.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15ull + 1) {}
  uint32_t bits() {
    state_ = state_ * 6364136223846793005ull + 1442695040888963407ull;
    return static_cast<uint32_t>(state_ >> 32);
  }
  float uniform(float low, float high) { return low + (high - low) * static_cast<float>(bits() >> 8) * 0x1p-24f; }
  std::vector<float> values(int64_t count, float low, float high) {
    std::vector<float> result(static_cast<size_t>(count));
    for (float& value : result) value = uniform(low, high);
    return result;
  }

 private:
  uint64_t state_;
};

struct ScanShape {
  int64_t b, H, W, d, n, R;
  int64_t pixels() const { return b * H * W; }
  int64_t width() const { return 4 * (2 * n + R); }
};

// u, p, dt_weight, A, D, delta_bias, in the order of the op's arguments; the gradients come in the same order.
template <class T>
struct ScanTensors {
  std::vector<T> u, p, weight, A, D, bias;
};

inline ScanTensors<float> random_scan(const ScanShape& s, uint64_t seed) {
  Random random(seed);
  return {random.values(s.pixels() * s.d, -1.5f, 1.5f), random.values(s.pixels() * s.width(), -1.5f, 1.5f),
          random.values(4 * s.R * s.d, -1.0f, 1.0f),    random.values(4 * s.n * s.d, -3.0f, -0.1f),
          random.values(s.d, -1.0f, 1.0f),              random.values(4 * s.d, -3.0f, 0.5f)};
}

inline ScanTensors<double> widened(const ScanTensors<float>& t) {
  const auto wide = [](const std::vector<float>& v) { return std::vector<double>(v.begin(), v.end()); };
  return {wide(t.u), wide(t.p), wide(t.weight), wide(t.A), wide(t.D), wide(t.bias)};
}

// (row, column) of the pixel that route k visits at step t.
inline std::pair<int64_t, int64_t> visit(int k, int64_t t, int64_t H, int64_t W) {
  if (k >= 2) t = H * W - 1 - t;
  return k % 2 == 0 ? std::make_pair(t / W, t % W) : std::make_pair(t % H, t / H);
}

// y (b, H, W, d) of the scan; with `grad_y` and `grad` given, also the gradients, by walking every route back.
inline std::vector<double> expected_scan(const ScanShape& s, const ScanTensors<double>& t,
                                         const std::vector<double>* grad_y = nullptr,
                                         ScanTensors<double>* grad = nullptr) {
  const auto at = [](int64_t i) { return static_cast<size_t>(i); };
  std::vector<double> y(at(s.pixels() * s.d), 0.0);
  if (grad != nullptr) {
    *grad = {std::vector<double>(t.u.size()), std::vector<double>(t.p.size()), std::vector<double>(t.weight.size()),
             std::vector<double>(t.A.size()), std::vector<double>(t.D.size()), std::vector<double>(t.bias.size())};
  }
  const int64_t L = s.H * s.W;
  std::vector<double> h(at((L + 1) * s.n)), carry(at(s.n));  // h: every state of one channel, h[0] = 0
  for (int64_t image = 0; image < s.b; ++image) {
    for (int k = 0; k < 4; ++k) {
      for (int64_t c = 0; c < s.d; ++c) {
        const auto pixel = [&](int64_t step) {
          const auto [row, column] = visit(k, step, s.H, s.W);
          return (image * s.H + row) * s.W + column;
        };
        const auto before_softplus = [&](int64_t q) {
          double z = t.bias[at(k * s.d + c)];
          for (int64_t r = 0; r < s.R; ++r) {
            z += t.p[at(q * s.width() + 8 * s.n + k * s.R + r)] * t.weight[at((k * s.R + r) * s.d + c)];
          }
          return z;
        };
        const auto softplus = [](double z) { return z > 40 ? z : std::log1p(std::exp(z)); };
        for (int64_t step = 0; step < L; ++step) {
          const int64_t q = pixel(step);
          const double delta = softplus(before_softplus(q)), x = t.u[at(q * s.d + c)];
          for (int64_t j = 0; j < s.n; ++j) {
            const double B = t.p[at(q * s.width() + k * s.n + j)], C = t.p[at(q * s.width() + (4 + k) * s.n + j)];
            const double decay = std::exp(delta * t.A[at((k * s.n + j) * s.d + c)]);
            const double state = decay * h[at(step * s.n + j)] + delta * x * B;
            h[at((step + 1) * s.n + j)] = state;
            y[at(q * s.d + c)] += C * state;
          }
        }
        if (grad == nullptr) continue;
        for (double& value : carry) value = 0.0;
        for (int64_t step = L - 1; step >= 0; --step) {
          const int64_t q = pixel(step);
          const double z = before_softplus(q), delta = softplus(z), x = t.u[at(q * s.d + c)];
          const double g = (*grad_y)[at(q * s.d + c)];
          double grad_delta = 0.0;
          for (int64_t j = 0; j < s.n; ++j) {
            const int64_t B_at = q * s.width() + k * s.n + j, C_at = B_at + 4 * s.n, A_at = (k * s.n + j) * s.d + c;
            const double A = t.A[at(A_at)], decay = std::exp(delta * A), previous = h[at(step * s.n + j)];
            const double grad_h = carry[at(j)] + g * t.p[at(C_at)];
            grad->p[at(C_at)] += g * h[at((step + 1) * s.n + j)];
            grad->p[at(B_at)] += grad_h * delta * x;
            grad->u[at(q * s.d + c)] += grad_h * delta * t.p[at(B_at)];
            grad->A[at(A_at)] += grad_h * delta * decay * previous;
            grad_delta += grad_h * (A * decay * previous + x * t.p[at(B_at)]);
            carry[at(j)] = grad_h * decay;
          }
          const double grad_z = grad_delta / (1.0 + std::exp(-z));
          grad->bias[at(k * s.d + c)] += grad_z;
          for (int64_t r = 0; r < s.R; ++r) {
            const int64_t dt_at = q * s.width() + 8 * s.n + k * s.R + r, w_at = (k * s.R + r) * s.d + c;
            grad->p[at(dt_at)] += grad_z * t.weight[at(w_at)];
            grad->weight[at(w_at)] += grad_z * t.p[at(dt_at)];
          }
        }
      }
    }
  }
  for (int64_t q = 0; q < s.pixels(); ++q) {
    for (int64_t c = 0; c < s.d; ++c) {
      y[at(q * s.d + c)] += t.D[at(c)] * t.u[at(q * s.d + c)];
      if (grad == nullptr) continue;
      grad->u[at(q * s.d + c)] += (*grad_y)[at(q * s.d + c)] * t.D[at(c)];
      grad->D[at(c)] += (*grad_y)[at(q * s.d + c)] * t.u[at(q * s.d + c)];
    }
  }
  return y;
}

// Basis i of order k on knots t, by the recursion of de Boor's book.
inline double basis(const std::vector<double>& t, int64_t i, int64_t k, double x) {
  const auto at = [&](int64_t j) { return t[static_cast<size_t>(j)]; };
  if (k == 0) return at(i) <= x && x < at(i + 1) ? 1.0 : 0.0;
  return (x - at(i)) / (at(i + k) - at(i)) * basis(t, i, k - 1, x) +
         (at(i + k + 1) - x) / (at(i + k + 1) - at(i + 1)) * basis(t, i + 1, k - 1, x);
}

inline double basis_slope(const std::vector<double>& t, int64_t i, int64_t k, double x) {
  const auto at = [&](int64_t j) { return t[static_cast<size_t>(j)]; };
  return static_cast<double>(k) * (basis(t, i, k - 1, x) / (at(i + k) - at(i)) -
                                   basis(t, i + 1, k - 1, x) / (at(i + k + 1) - at(i + 1)));
}

// The half nearest to a float, ties to even, as a number; infinity from 65520 on.
inline double nearest_half(float value) {
  const double x = value;
  if (!std::isfinite(x)) return x;
  int exponent = 0;
  std::frexp(x, &exponent);                                     // |x| in [2^(exponent - 1), 2^exponent)
  const double unit = std::ldexp(1.0, exponent < -13 ? -24 : exponent - 11);
  const double rounded = std::nearbyint(x / unit) * unit;
  return std::fabs(rounded) >= 65520.0 ? std::copysign(HUGE_VAL, x) : rounded;
}

// The number that 16 bits of a half stand for.
inline double number_of(uint16_t half) {
  const int exponent = half >> 10 & 31, fraction = half & 1023;
  double magnitude = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
  if (exponent == 31) magnitude = fraction == 0 ? HUGE_VAL : std::nan("");
  return half & 0x8000 ? -magnitude : magnitude;
}

}  // namespace self_test
