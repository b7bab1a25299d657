// The CPU library compared with its definitions in double, without Python: what CI runs for aarch64 under an emulator, and
// what a new board can run by itself.
//
//   vmkla_cpu_self_test [--expect neon] [--spoil CHECK] [--list]
//
// --expect: the instruction set that the library must pick by itself. --spoil: make the expectation of one check wrong,
// which must fail. Exit status: 0 all hold; 1 at least one does not; 2 wrong usage.
#include <algorithm>
#include <cfloat>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <string>
#include <thread>

#include "half.h"
#include "self_test_expected.h"
#include "self_test_report.h"
#include "torch_api.h"

namespace {

using namespace self_test;

// As in tests/tolerances.py: float32 sums of terms of order 1, exp to 1e-7; a forgotten term or a wrong route is 1e-2 off.
constexpr double kFloatLimit = 2e-5;
constexpr double kHalfLimit = 1e-3;  // one rounding to half
constexpr double kExact = 0.0;

const char* const kChecks[] = {
    "instruction-set", "half-to-float",  "float-to-half",   "half-in-library", "scan-forward",  "scan-half",
    "scan-backward",   "expected-scan",  "scan-extremes",   "scan-nan",        "threads",       "callers",
    "denormals-kept",  "spline-uniform", "spline-any-grid", "spline-half",     "spline-slopes", "exp2",
};

std::string text_of(const ScanShape& s) {
  char text[96];
  std::snprintf(text, sizeof text, "b=%d H=%d W=%d d=%d n=%d R=%d", int(s.b), int(s.H), int(s.W), int(s.d), int(s.n),
                int(s.R));
  return text;
}

// One pixel; odd everything; rows longer than a tile of 32; channels that fill no vector; many groups of channels.
const ScanShape kShapes[] = {
    {1, 1, 1, 1, 1, 1}, {2, 5, 7, 6, 16, 2}, {1, 3, 40, 19, 16, 3}, {2, 37, 2, 33, 5, 1}, {1, 4, 4, 260, 16, 1},
};

std::vector<float> forward(const ScanShape& s, const ScanTensors<float>& t, int threads) {
  std::vector<float> y(static_cast<size_t>(s.pixels() * s.d), -1.0f);
  vmkla_cpu_scan2d_forward(s.b, s.H, s.W, s.d, s.n, s.R, 0, t.u.data(), t.p.data(), t.weight.data(), t.A.data(),
                           t.D.data(), t.bias.data(), y.data(), threads);
  return y;
}

ScanTensors<float> backward(const ScanShape& s, const ScanTensors<float>& t, const std::vector<float>& grad_y,
                            int threads) {
  ScanTensors<float> g{t.u, t.p, t.weight, t.A, t.D, t.bias};  // only the sizes count
  vmkla_cpu_scan2d_backward(s.b, s.H, s.W, s.d, s.n, s.R, grad_y.data(), t.u.data(), t.p.data(), t.weight.data(),
                            t.A.data(), t.D.data(), t.bias.data(), g.u.data(), g.p.data(), g.weight.data(), g.A.data(),
                            g.D.data(), g.bias.data(), threads);
  return g;
}

std::vector<uint16_t> halves_of(const std::vector<float>& values) {
  std::vector<uint16_t> halves(values.size());
  vmkla::float_to_half(values.data(), halves.data(), values.size());
  return halves;
}

std::vector<float> floats_of(const std::vector<uint16_t>& halves) {
  std::vector<float> values(halves.size());
  vmkla::half_to_float(halves.data(), values.data(), halves.size());
  return values;
}

void check_scan(Report& report) {
  for (const ScanShape& s : kShapes) {
    const ScanTensors<float> t = random_scan(s, 1);
    const std::vector<float> grad_y = Random(2).values(s.pixels() * s.d, -1.0f, 1.0f);
    const std::vector<double> grad_wide(grad_y.begin(), grad_y.end());
    ScanTensors<double> grad;
    const std::vector<double> y = expected_scan(s, widened(t), &grad_wide, &grad);
    report.near("scan-forward", text_of(s), forward(s, t, 2), y, kFloatLimit);
    const ScanTensors<float> found = backward(s, t, grad_y, 2);
    report.near("scan-backward", "u, " + text_of(s), found.u, grad.u, kFloatLimit);
    report.near("scan-backward", "p, " + text_of(s), found.p, grad.p, kFloatLimit);
    report.near("scan-backward", "dt_weight, " + text_of(s), found.weight, grad.weight, kFloatLimit);
    report.near("scan-backward", "A, " + text_of(s), found.A, grad.A, kFloatLimit);
    report.near("scan-backward", "D, " + text_of(s), found.D, grad.D, kFloatLimit);
    report.near("scan-backward", "delta_bias, " + text_of(s), found.bias, grad.bias, kFloatLimit);
  }
}

// The expected gradient itself, against differences of the expected result: it was written by hand.
void check_expected_gradient(Report& report) {
  const ScanShape s{1, 2, 3, 2, 3, 2};
  ScanTensors<double> t = widened(random_scan(s, 3)), grad;
  const std::vector<float> weights = Random(4).values(s.pixels() * s.d, -1.0f, 1.0f);
  const std::vector<double> grad_y(weights.begin(), weights.end());
  expected_scan(s, t, &grad_y, &grad);
  const auto loss = [&] {
    const std::vector<double> y = expected_scan(s, t);
    double sum = 0.0;
    for (size_t i = 0; i < y.size(); ++i) sum += grad_y[i] * y[i];
    return sum;
  };
  const auto compare = [&](const char* name, std::vector<double>& values, const std::vector<double>& expected) {
    std::vector<double> differences;
    for (double& value : values) {
      const double kept = value, step = 1e-5;
      value = kept + step;
      const double above = loss();
      value = kept - step;
      differences.push_back((above - loss()) / (2.0 * step));
      value = kept;
    }
    report.near("expected-scan", name, differences, expected, 1e-8);
  };
  compare("gradient of u", t.u, grad.u);
  compare("gradient of p", t.p, grad.p);
  compare("gradient of dt_weight", t.weight, grad.weight);
  compare("gradient of A", t.A, grad.A);
  compare("gradient of D", t.D, grad.D);
  compare("gradient of delta_bias", t.bias, grad.bias);
}

void check_scan_half(Report& report) {
  const ScanShape s{1, 5, 9, 21, 16, 2};
  ScanTensors<float> t = random_scan(s, 5);
  const std::vector<uint16_t> u = halves_of(t.u), p = halves_of(t.p), weight = halves_of(t.weight);
  t.u = floats_of(u), t.p = floats_of(p), t.weight = floats_of(weight);  // the expectation starts from the same numbers
  std::vector<uint16_t> y(t.u.size());
  vmkla_cpu_scan2d_forward(s.b, s.H, s.W, s.d, s.n, s.R, 1, u.data(), p.data(), weight.data(), t.A.data(), t.D.data(),
                           t.bias.data(), y.data(), 2);
  report.near("scan-half", text_of(s), floats_of(y), expected_scan(s, widened(t)), kHalfLimit);
}

// Deltas from 1e-13 to 80 and decays far below the smallest float: exponents beyond what the bits can hold.
void check_scan_extremes(Report& report) {
  const ScanShape s{1, 3, 5, 9, 16, 1};
  for (const float bias : {-30.0f, 0.0f, 80.0f}) {
    ScanTensors<float> t = random_scan(s, 6);
    for (float& value : t.bias) value = bias;
    for (float& value : t.A) value *= 100.0f;
    report.near("scan-extremes", "delta_bias " + std::to_string(int(bias)), forward(s, t, 1),
                expected_scan(s, widened(t)), kFloatLimit);
  }
}

void check_nan(Report& report) {
  const ScanShape s{1, 2, 3, 5, 16, 2};
  const ScanTensors<float> sound = random_scan(s, 7);
  const auto reaches_y = [&](const char* name, auto spoil) {
    ScanTensors<float> t = sound;
    spoil(t);
    const std::vector<float> y = forward(s, t, 1);
    report.that("scan-nan", std::any_of(y.begin(), y.end(), [](float v) { return std::isnan(v); }), name);
  };
  const float nan = std::nanf("");
  reaches_y("a NaN in u reaches y", [&](auto& t) { t.u[0] = nan; });
  reaches_y("a NaN in B reaches y", [&](auto& t) { t.p[0] = nan; });
  reaches_y("a NaN in dt reaches y", [&](auto& t) { t.p[static_cast<size_t>(8 * s.n)] = nan; });
  reaches_y("a NaN in dt_weight reaches y", [&](auto& t) { t.weight[0] = nan; });
  reaches_y("a NaN in A reaches y", [&](auto& t) { t.A[0] = nan; });
  reaches_y("a NaN in delta_bias reaches y", [&](auto& t) { t.bias[0] = nan; });
}

void check_threads(Report& report) {
  const ScanShape s{2, 6, 5, 70, 16, 2};
  const ScanTensors<float> t = random_scan(s, 8);
  const std::vector<float> grad_y = Random(9).values(s.pixels() * s.d, -1.0f, 1.0f), alone = forward(s, t, 1);
  const ScanTensors<float> grad_alone = backward(s, t, grad_y, 1);
  for (const int threads : {2, 3, 8}) {
    const bool same = forward(s, t, threads) == alone && backward(s, t, grad_y, threads).A == grad_alone.A;
    report.that("threads", same, std::to_string(threads) + " threads give the bits of one");
  }
  bool same[3] = {};
  std::vector<std::thread> callers;
  for (bool& mine : same) {
    callers.emplace_back([&] {
      mine = true;
      for (int i = 0; i < 5; ++i) mine = mine && forward(s, t, 2) == alone;
    });
  }
  for (std::thread& caller : callers) caller.join();
  report.that("callers", same[0] && same[1] && same[2], "three callers at once each get the bits of one");
  volatile float tiny = FLT_MIN;
  report.that("denormals-kept", tiny * 0.5f > 0.0f, "the caller's denormal numbers survive a call");
}

struct Grid {
  const char* name;
  int64_t order, rows;
  bool uniform;
  std::vector<float> knots;  // (rows, count)
  int64_t count() const { return static_cast<int64_t>(knots.size()) / rows; }
  int64_t bases() const { return count() - order - 1; }
  std::vector<double> row(int64_t value) const {
    const auto first = knots.begin() + value % rows * count();
    return std::vector<double>(first, first + count());
  }
};

std::vector<Grid> grids() {
  std::vector<Grid> result;
  for (const int64_t cells : {5, 2, 13}) {  // 8 bases, the usual KAN, fill vectors evenly; 5 and 16 do not
    Grid grid{"uniform", 3, 1, true, {}};
    for (int64_t i = -3; i <= cells + 3; ++i) grid.knots.push_back(-1.0f + 0.25f * static_cast<float>(i));
    result.push_back(grid);
  }
  result.push_back({"any", 3, 1, false, {-2.0f, -1.5f, -1.25f, -0.5f, 0.0f, 0.125f, 1.0f, 1.5f, 2.5f}});
  result.push_back({"order 2, two rows", 2, 2, false,
                    {-2.0f, -1.0f, -0.75f, 0.5f, 1.0f, 2.0f, -1.5f, -1.0f, 0.0f, 0.25f, 1.25f, 1.75f}});
  return result;
}

void check_splines(Report& report) {
  for (const Grid& grid : grids()) {
    const std::string check = grid.uniform ? "spline-uniform" : "spline-any-grid";
    const std::string what = std::string(grid.name) + ", " + std::to_string(grid.bases()) + " bases";
    const float first = grid.knots.front(), step = grid.uniform ? grid.knots[1] - first : 0.0f;
    const int64_t count = 2 * 151;  // an odd number of pairs
    const std::vector<float> x = Random(10).values(count, first - 0.5f, grid.knots.back() + 0.5f);
    const std::vector<uint16_t> x_half = halves_of(x);
    const std::vector<float> x_rounded = floats_of(x_half);
    const auto clamped = [&](float value, const std::vector<double>& t) {
      return std::min(std::max(double(value), t.front()), t.back());
    };
    std::vector<double> expected, expected_half, slopes(static_cast<size_t>(count));
    const std::vector<float> grad = Random(11).values(count * grid.bases(), -1.0f, 1.0f);
    for (int64_t i = 0; i < count; ++i) {
      const std::vector<double> t = grid.row(i);
      const float value = x[static_cast<size_t>(i)];
      for (int64_t j = 0; j < grid.bases(); ++j) {
        expected.push_back(basis(t, j, grid.order, clamped(value, t)));
        expected_half.push_back(basis(t, j, grid.order, clamped(x_rounded[static_cast<size_t>(i)], t)));
        const bool inside = value >= t.front() && value <= t.back();
        const double slope = inside ? basis_slope(t, j, grid.order, value) : 0.0;
        slopes[static_cast<size_t>(i)] += slope * grad[static_cast<size_t>(i * grid.bases() + j)];
      }
    }
    std::vector<float> found(expected.size()), found_slopes(x.size());
    vmkla_cpu_bspline_forward(count, grid.rows, grid.count(), grid.order, 0, first, step, x.data(), grid.knots.data(),
                              found.data(), 2);
    report.near(check, what, found, expected, kFloatLimit);
    std::vector<uint16_t> found_half(expected.size());
    vmkla_cpu_bspline_forward(count, grid.rows, grid.count(), grid.order, 1, first, step, x_half.data(),
                              grid.knots.data(), found_half.data(), 2);
    report.near("spline-half", what, floats_of(found_half), expected_half, kHalfLimit);
    vmkla_cpu_bspline_backward(count, grid.rows, grid.count(), grid.order, first, step, x.data(), grid.knots.data(),
                               grad.data(), found_slopes.data(), 2);
    report.near("spline-slopes", what, found_slopes, slopes, kFloatLimit);
  }
}

// Every half there is, through the library's own conversions: with C = 0 the scan is y = D u, here u itself.
void check_half_in_library(Report& report) {
  const ScanShape s{1, 1, 1, 65536, 1, 1};
  std::vector<uint16_t> u(65536), p(static_cast<size_t>(s.width())), weight(4 * 65536), y(65536);
  std::vector<double> expected(65536);
  for (size_t i = 0; i < u.size(); ++i) u[i] = static_cast<uint16_t>(i), expected[i] = number_of(u[i]);
  // delta u B is 0 times infinity where u is infinite: such a u gives NaN, and has no place here.
  for (size_t i = 0; i < u.size(); ++i) {
    if (std::isinf(expected[i])) u[i] = 0, expected[i] = 0.0;
  }
  const std::vector<float> A(4 * 65536, -1.0f), D(65536, 1.0f), bias(4 * 65536, 0.0f);
  vmkla_cpu_scan2d_forward(s.b, s.H, s.W, s.d, s.n, s.R, 1, u.data(), p.data(), weight.data(), A.data(), D.data(),
                           bias.data(), y.data(), 2);
  report.near("half-in-library", "all finite halves and NaN come back as they went in", floats_of(y), expected, kExact);
}

// The conversions alone; they are no part of the library's interface, so this program has its own copy of the source.
void check_half_conversions(Report& report) {
  std::vector<uint16_t> all(65536);
  std::vector<double> numbers(65536);
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint16_t>(i), numbers[i] = number_of(all[i]);
  const std::vector<float> values = floats_of(all);
  report.near("half-to-float", "all 65536", values, numbers, kExact);
  std::vector<float> inputs = {65504.0f, 65519.9f, 65520.0f, -65520.0f, 1e30f, -1e30f, HUGE_VALF, std::nanf(""), 1e-40f};
  for (size_t i = 0; i + 1 < 0x7c00; ++i) {
    const float middle = 0.5f * (values[i] + values[i + 1]);  // exact in float: a tie
    inputs.insert(inputs.end(), {middle, -middle, std::nextafterf(middle, 0.0f), std::nextafterf(middle, 1e9f)});
  }
  Random random(12);
  for (int i = 0; i < 20000; ++i) {
    const uint32_t bits = random.bits();
    float value;
    std::memcpy(&value, &bits, sizeof value);
    inputs.push_back(value);
  }
  std::vector<double> expected;
  for (const float value : inputs) expected.push_back(nearest_half(value));
  report.near("float-to-half", std::to_string(inputs.size()) + " values, every tie", floats_of(halves_of(inputs)),
              expected, kExact);
}

void check_exp2(Report& report) {
  std::vector<double> found, expected;
  for (const float low : {-120.0f, -20.0f, -1.0f}) {
    const std::vector<float> x = Random(13).values(256, low, low + 1.0f);
    double sum = 0.0;
    for (const float value : x) sum += std::exp2(double(value));
    found.push_back(vmkla_cpu_exp2_loop(x.data(), 256, 1) / sum);
    expected.push_back(1.0);
  }
  report.near("exp2", "sums over three ranges, relative", found, expected, 1e-6);
}

}  // namespace

int main(int argc, char** argv) {
  std::string expect, spoil;
  for (int i = 1; i < argc; ++i) {
    const std::string option = argv[i];
    if (option == "--list") {
      for (const char* check : kChecks) std::puts(check);
      return 0;
    }
    const bool known = option == "--expect" || option == "--spoil";
    if (!known || i + 1 == argc) {
      std::fprintf(stderr, "usage: %s [--expect INSTRUCTION_SET] [--spoil CHECK] [--list]\n", argv[0]);
      return 2;
    }
    (option == "--expect" ? expect : spoil) = argv[++i];
  }
  const auto is_spoilt = [&](const char* check) { return spoil == check; };
  if (!spoil.empty() && std::none_of(std::begin(kChecks), std::end(kChecks), is_spoilt)) {
    std::fprintf(stderr, "there is no check %s; --list names them\n", spoil.c_str());
    return 2;
  }
  Report report(spoil);
  const std::string picked = vmkla_cpu_instruction_set();
  report.that("instruction-set", expect.empty() || picked == expect, "the library picks " + picked);
  check_half_conversions(report);
  check_expected_gradient(report);
  for (const char* name : {"avx512", "avx2", "neon", "baseline"}) {
    if (vmkla_cpu_set_instruction_set(name) == 0) continue;
    check_half_in_library(report);
    check_scan(report);
    check_scan_half(report);
    check_scan_extremes(report);
    check_nan(report);
    check_threads(report);
    check_splines(report);
    check_exp2(report);
  }
  std::printf("%d checks do not hold\n", report.failures());
  return report.failures() == 0 ? 0 : 1;
}
