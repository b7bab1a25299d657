// Every time is a median over rounds of one CUDA graph with several launches, by CUDA events, per launch; the tensors
// are the same in every launch, so what fits into the L2 cache is there. The two floors are measured, not taken from
// data sheets: a kernel of nothing but exponentials, and bytes at the speed of a large device copy.
#include <algorithm>
#include <cstdio>

#include "../cuda/device.h"
#include "../cuda/kernel_launch.h"
#include "../cuda/scan2d_plan.h"
#include "cases.h"
#include "timing.h"

namespace vmkla {
namespace harness {
namespace {

using cuda::Element;

constexpr int kChains = 16;    // independent exponentials of a thread, as in the scan
constexpr int kExponentialThreads = 128;

struct ExponentialTask {
  int repeats;
  float* out;
};

// 2^-x over and over: the minus sign is free, and the results stay between 0 and 1.
__global__ void __launch_bounds__(kExponentialThreads) exponentials(const ExponentialTask q) {
  float x[kChains];
  VMKLA_UNROLL for (int i = 0; i < kChains; ++i) x[i] = 0.0625f * static_cast<float>(i + threadIdx.x % 3);
  VMKLA_KEEP_LOOP for (int repeat = 0; repeat < q.repeats; ++repeat) {
    VMKLA_UNROLL for (int i = 0; i < kChains; ++i) x[i] = cuda::exp2_approximate(-x[i]);
  }
  float sum = 0.0f;
  VMKLA_UNROLL for (int i = 0; i < kChains; ++i) sum += x[i];
  q.out[static_cast<int64_t>(blockIdx.x) * kExponentialThreads + threadIdx.x] = sum;
}

class Event {
 public:
  Event() { check(cudaEventCreate(&event_), "cudaEventCreate"); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void record(const Stream& stream) { check(cudaEventRecord(event_, stream.get()), "cudaEventRecord"); }
  float since_ms(const Event& begin) {
    float elapsed = 0.0f;
    check(cudaEventSynchronize(event_), "cudaEventSynchronize");
    check(cudaEventElapsedTime(&elapsed, begin.event_, event_), "cudaEventElapsedTime");
    return elapsed;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

// How often something is timed, and launches of one graph.
struct Rounds {
  int rounds, launches;
};

// Median time of one of the launches that `enqueue` makes, in ms.
double median_ms(Rounds r, const std::function<void(cudaStream_t)>& enqueue) {
  const Stream stream;
  enqueue(stream.get());  // kernels are loaded at their first launch, which a capture should not be
  stream.wait();
  const Graph graph(stream, [&](cudaStream_t captured) {
    for (int i = 0; i < r.launches; ++i) enqueue(captured);
  });
  for (int i = 0; i < r.launches; i += 3) graph.replay(stream);
  std::vector<double> times;
  Event begin, end;
  for (int i = 0; i < r.rounds; ++i) {
    begin.record(stream);
    graph.replay(stream);
    end.record(stream);
    times.push_back(static_cast<double>(end.since_ms(begin)) / r.launches);
  }
  std::nth_element(times.begin(), times.begin() + r.rounds / 2, times.end());
  return times[r.rounds / 2];
}

// Exponentials per ms.
double exponential_rate(Rounds r, int repeats) {
  int multiprocessors = 0;
  check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0), "cudaDeviceGetAttribute");
  const int64_t blocks = 16 * multiprocessors;
  const DeviceMemory out(static_cast<size_t>(blocks * kExponentialThreads) * sizeof(float));
  const ExponentialTask task{repeats, static_cast<float*>(out.get())};
  const double ms = median_ms({r.rounds, 1}, [&](cudaStream_t stream) {
    check(cuda::launch(exponentials, blocks, kExponentialThreads, 0, stream, task), "exponentials");
  });
  return static_cast<double>(blocks) * kExponentialThreads * kChains * repeats / ms;
}

// Time of a device copy that reads and writes `bytes` in all, in ms.
double copy_ms(Rounds r, int64_t bytes) {
  const DeviceMemory from(static_cast<size_t>(bytes / 2)), to(static_cast<size_t>(bytes / 2));
  return median_ms(r, [&](cudaStream_t stream) {
    check(cudaMemcpyAsync(to.get(), from.get(), from.bytes(), cudaMemcpyDeviceToDevice, stream), "cudaMemcpyAsync");
  });
}

struct Yardsticks {
  double exponentials_per_ms, bytes_per_ms;
};

void time_scan(const char* network, int stage, const ScanShape& s, Element element, Rounds r, const Yardsticks& y) {
  const ScanCase work(s, element, random_scan(s, element, 7));
  const double ms = median_ms(r, [&](cudaStream_t stream) { work.enqueue(stream); });
  const int64_t bytes = s.b * s.pixels() * (2 * s.d + s.width()) * static_cast<int64_t>(size_of(element));
  const double exponentials_ms = static_cast<double>(4 * s.b * s.pixels() * s.d * s.n) / y.exponentials_per_ms;
  const double bytes_ms = static_cast<double>(bytes) / y.bytes_per_ms;
  const double copy = copy_ms(r, bytes);
  int multiprocessors = 0;
  check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0), "cudaDeviceGetAttribute");
  const cuda::Scan2dPlan plan = cuda::plan_scan2d({s.b, s.H, s.W, s.d, s.n, s.R}, multiprocessors);
  std::printf("{\"time\": \"selective_scan2d\", \"network\": \"%s\", \"stage\": %d, \"batch\": %lld, \"element\": "
              "\"%s\", \"shape\": [%lld, %lld, %lld, %lld, %lld, %lld], \"ms\": %.6f, \"exponentials_ms\": %.6f, "
              "\"bytes_ms\": %.6f, \"copy_ms\": %.6f, \"plan\": [%d, %d, %lld]}\n",
              network, stage, static_cast<long long>(s.b), name_of(element), static_cast<long long>(s.b),
              static_cast<long long>(s.H), static_cast<long long>(s.W), static_cast<long long>(s.d),
              static_cast<long long>(s.n), static_cast<long long>(s.R), ms, exponentials_ms, bytes_ms, copy,
              plan.states, plan.lanes, static_cast<long long>(plan.chunks));
  std::fflush(stdout);
}

void time_basis(const char* network, int64_t count, Element element, Rounds r, const Yardsticks& y) {
  const BasisShape s{count, 12, 3, true};
  std::mt19937 random(3);
  const BasisCase work(s, element, normal(count, 1.0f, random), knots_of(s, 3));
  const double ms = median_ms(r, [&](cudaStream_t stream) { work.enqueue(stream); });
  const int64_t bytes = count * (1 + s.knots - s.order - 1) * static_cast<int64_t>(size_of(element));
  const double bytes_ms = static_cast<double>(bytes) / y.bytes_per_ms;
  std::printf("{\"time\": \"bspline_basis\", \"network\": \"%s\", \"element\": \"%s\", \"count\": %lld, \"ms\": %.6f, "
              "\"bytes_ms\": %.6f, \"copy_ms\": %.6f, \"over_floor\": %.3f}\n",
              network, name_of(element), static_cast<long long>(count), ms, bytes_ms, copy_ms(r, bytes),
              ms / bytes_ms);
  std::fflush(stdout);
}

constexpr int64_t kSmall = 96;  // channels of the first stage of `small`

}  // namespace

void launch_once(int64_t size) {
  const int64_t side = size / 4;
  for (const Element element : {Element::kHalf, Element::kFloat}) {
    for (const int64_t batch : {1, 8}) {
      const ScanShape shape{batch, side, side, 2 * kSmall, 16, (kSmall + 15) / 16};
      const ScanCase scan(shape, element, random_scan(shape, element, 7));
      const Stream stream;
      scan.enqueue(stream.get());
      stream.wait();
    }
    const BasisShape bases{side * side * kSmall, 12, 3, true};
    std::mt19937 random(3);
    const BasisCase basis(bases, element, normal(bases.count, 1.0f, random), knots_of(bases, 3));
    const Stream stream;
    basis.enqueue(stream.get());
    stream.wait();
  }
}

void time_kernels(int64_t size, int rounds) {
  const int64_t quarter = size / 4;
  // Small inputs, as in a trial run, get small yardsticks and single launches.
  const Rounds r{rounds, size >= 128 ? 10 : 1};
  const int64_t copied = std::min<int64_t>(int64_t{1} << 29, size * size * 8192);
  const Yardsticks yardsticks{exponential_rate(r, size >= 128 ? 2000 : 20),
                              static_cast<double>(copied) / copy_ms(r, copied)};
  std::printf("{\"exponentials_per_second\": %.6g, \"copy_bytes_per_second\": %.6g}\n",
              yardsticks.exponentials_per_ms * 1e3, yardsticks.bytes_per_ms * 1e3);
  const struct {
    const char* name;
    int64_t dim;
  } networks[] = {{"small", kSmall}, {"nano", 32}};
  for (const auto& network : networks) {
    for (const Element element : {Element::kHalf, Element::kFloat}) {
      for (const int64_t batch : {1, 8}) {
        for (int stage = 0; stage < 4; ++stage) {
          const int64_t side = std::max<int64_t>(1, quarter >> stage), dim = network.dim << stage;
          time_scan(network.name, stage + 1, {batch, side, side, 2 * dim, 16, (dim + 15) / 16}, element, r,
                    yardsticks);
        }
      }
      time_basis(network.name, quarter * quarter * network.dim, element, r, yardsticks);
    }
  }
}

}  // namespace harness
}  // namespace vmkla
