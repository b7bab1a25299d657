#include "checks.h"

#include <cmath>
#include <cstdio>
#include <set>

#include "../cuda/scan2d_plan.h"
#include "cases.h"

namespace vmkla {
namespace harness {
namespace {

using cuda::Element;

// Largest error over the largest magnitude. Float: sums over thousands of steps, exponentials good to 2^-22. Half: one
// rounding of the result. A route in the wrong order, a lost carry or a state in half is off by 1e-2 or more.
double limit_of(Element element) { return element == Element::kHalf ? 1e-3 : 1e-4; }

struct Outcome {
  double error;  // NaN where the result is
  bool repeats, replays, guards;
  bool good(double limit) const { return error <= limit && repeats && replays && guards; }
};

double largest_error(const std::vector<float>& result, const std::vector<double>& expected) {
  double error = 0.0, largest = 1e-30;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double difference = std::abs(result[i] - expected[i]);
    if (std::isnan(difference)) return difference;
    error = std::max(error, difference);
    largest = std::max(largest, std::abs(expected[i]));
  }
  return error / largest;
}

// Runs a case twice directly and twice from a graph; the four results must have the same bits.
template <class Case>
Outcome run(Case& work, Element element, const std::vector<double>& expected) {
  const Stream stream;
  const auto once = [&](const std::function<void()>& enqueue) {
    work.poison();
    check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    enqueue();
    stream.wait();
    return work.result();
  };
  const auto first = once([&] { work.enqueue(stream.get()); });
  const auto second = once([&] { work.enqueue(stream.get()); });
  const Graph graph(stream, [&](cudaStream_t captured) { work.enqueue(captured); });
  const auto third = once([&] { graph.replay(stream); });
  const auto fourth = once([&] { graph.replay(stream); });
  return Outcome{largest_error(to_floats(first, element), expected), first == second,
                 first == third && first == fourth, work.guards_hold()};
}

// `more`: further members of the JSON object.
bool report(const char* op, const std::string& shape, const std::string& more, Element element,
            const Outcome& outcome) {
  const double limit = limit_of(element);
  const bool good = outcome.good(limit);
  const auto word = [](bool value) { return value ? "true" : "false"; };
  const std::string error = std::isfinite(outcome.error) ? std::to_string(outcome.error * 1e6) : "null";
  std::printf("{\"check\": \"%s\", \"shape\": [%s], %s\"element\": \"%s\", \"error_ppm\": %s, \"limit_ppm\": %g, "
              "\"repeats\": %s, \"graph\": %s, \"guards\": %s, \"ok\": %s}\n",
              op, shape.c_str(), more.c_str(), name_of(element), error.c_str(), limit * 1e6, word(outcome.repeats),
              word(outcome.replays), word(outcome.guards), word(good));
  std::fflush(stdout);
  return good;
}

// What is run depends on the GPU's size; these choose every way of cutting the checked shapes into threads and chunks,
// whatever GPU the harness runs on.
constexpr int kMultiprocessors[] = {1, 16, 46, 132};

int multiprocessors_here() {
  int count = 0;
  check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, 0), "cudaDeviceGetAttribute");
  return count;
}

// One check as this GPU cuts the work, and one for every other way in which GPUs of kMultiprocessors would: thoroughly
// for this shape, else those whose kernels are not among `kernels_run`. Returns how many failed.
int check_scan(const ScanShape& s, Element element, unsigned seed, bool thorough, std::set<std::string>* kernels_run) {
  const ScanInputs inputs = random_scan(s, element, seed);
  ScanCase work(s, element, inputs);
  std::string shape;
  for (const int64_t size : {s.b, s.H, s.W, s.d, s.n, s.R}) shape += (shape.empty() ? "" : ", ") + std::to_string(size);
  const std::vector<double> expected = scan_reference(s, inputs);
  const int here = multiprocessors_here();
  std::set<std::string> plans;
  int failed = 0;
  const auto check_cut = [&](int cut_for, int multiprocessors) {
    const cuda::Scan2dPlan p = cuda::plan_scan2d({s.b, s.H, s.W, s.d, s.n, s.R}, multiprocessors);
    const std::string split = std::to_string(p.states) + ", " + std::to_string(p.lanes);
    const std::string plan = split + ", " + std::to_string(p.chunks);
    const bool new_plan = plans.insert(plan).second;
    const bool new_kernels = kernels_run->insert(split + (p.chunks > 1 ? " in chunks" : "")).second;
    if (cut_for != 0 && !(thorough ? new_plan : new_kernels)) return;
    work.cut_for(cut_for);
    const std::string more = "\"multiprocessors\": " + std::to_string(multiprocessors) + ", \"plan\": [" + plan + "], ";
    failed += !report("selective_scan2d", shape, more, element, run(work, element, expected));
  };
  check_cut(0, here);
  for (const int multiprocessors : kMultiprocessors) check_cut(multiprocessors, multiprocessors);
  return failed;
}

bool check_basis(const BasisShape& s, Element element, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<float> x = rounded(normal(s.count, 1.2f, random), element);
  // Far outside the support, where half overflows to infinity, the bases are 0.
  if (s.count > 2) x[0] = rounded({1e30f}, element)[0], x[1] = -x[0];
  const std::vector<float> knots = knots_of(s, seed);
  std::vector<double> exact(knots.begin(), knots.end());
  if (s.uniform) {  // the kernel knows the first knot and the step, not the rounded knots
    for (int64_t i = 0; i < s.knots; ++i) exact[i] = static_cast<double>(-2.2f) + static_cast<double>(0.4f) * i;
  }
  BasisCase work(s, element, x, knots);
  const std::string shape = std::to_string(s.count) + ", " + std::to_string(s.knots) + ", " +
                            std::to_string(s.order) + ", " + (s.uniform ? "1" : "0");
  return report("bspline_basis", shape, "", element, run(work, element, basis_reference(x, exact, s.order)));
}

}  // namespace

int check_kernels(bool thorough) {
  std::vector<ScanShape> scans{
      {1, 1, 1, 1, 1, 1},    {2, 7, 5, 3, 4, 1},     {3, 1, 70, 8, 8, 3},    {1, 70, 1, 33, 16, 12},
      {2, 33, 9, 70, 16, 2}, {1, 16, 24, 192, 16, 6}, {1, 20, 13, 40, 17, 3}, {2, 12, 17, 65, 32, 5},
      {1, 9, 40, 10, 50, 2}, {1, 14, 17, 9, 100, 70}, {1, 8, 8, 1536, 16, 48}, {1, 24, 11, 64, 16, 130},
  };
  if (thorough) {
    scans.push_back({1, 64, 64, 192, 16, 6});
    scans.push_back({2, 32, 32, 384, 16, 12});
    scans.push_back({1, 16, 16, 768, 16, 24});
    scans.push_back({8, 64, 64, 64, 16, 2});
    scans.push_back({1, 128, 128, 32, 16, 6});
  }
  const std::vector<BasisShape> bases{
      {1, 12, 3, true}, {1000, 12, 3, true}, {333, 15, 3, true},
      {4097, 11, 3, false}, {500, 9, 2, false}, {257, 20, 5, false},
  };
  int failed = 0;
  unsigned seed = 1;
  for (const Element element : {Element::kFloat, Element::kHalf}) {
    std::set<std::string> kernels_run;
    for (const ScanShape& shape : scans) failed += check_scan(shape, element, seed++, thorough, &kernels_run);
    for (const BasisShape& shape : bases) failed += !check_basis(shape, element, seed++);
  }
  return failed;
}

}  // namespace harness
}  // namespace vmkla
