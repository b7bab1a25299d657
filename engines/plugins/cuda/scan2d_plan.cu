#include "scan2d_plan.h"

#include <algorithm>

#include "kernel_launch.h"

namespace vmkla {
namespace cuda {
namespace {

constexpr int kRoutes = 4;

int64_t most_chunks(const Scan2dShape& s) { return std::max<int64_t>(1, s.L() / kShortestChunk); }

// Warps of one chunk of all routes of all images, one lane a channel.
int64_t warps_of_chunk(const Scan2dShape& s) { return kRoutes * s.b * divide_up(s.d, 32); }

// At least images x chunks of any plan for this shape or one with fewer images or pixels, 0 where all have one chunk.
int64_t most_images_times_chunks(const Scan2dShape& s) {
  const int64_t chunks = most_chunks(s);
  if (chunks == 1) return 0;
  // chunks <= wanted / (images of them) rounded up, so images x chunks < wanted + images; plan_scan2d's rounding of a
  // chunk's length only makes chunks fewer.
  const int64_t wanted = divide_up(kWantedWarps * kMostMultiprocessors, kRoutes * divide_up(s.d, 32));
  return std::min(s.b * chunks, wanted + s.b);
}

}  // namespace

bool valid(const Scan2dShape& s) {
  if (s.b < 0 || s.H < 0 || s.W < 0 || s.d < 1 || s.n < 1 || s.R < 1) return false;
  if (s.n > kMaxStates || s.d > kMaxChannels || s.R > kMaxRank) return false;
  if (s.b > INT32_MAX || s.H > INT32_MAX || s.W > INT32_MAX || s.H * s.W > INT32_MAX) return false;
  // Element numbers of u, p and the workspace are then far inside int64.
  const double widest = 2.0 * static_cast<double>(s.d) + 4.0 * static_cast<double>(2 * s.n + s.R);
  return static_cast<double>(s.b) * static_cast<double>(s.L()) * widest < 1e17;
}

Scan2dPlan plan_scan2d(const Scan2dShape& s, int64_t multiprocessors) {
  Scan2dPlan plan{};
  const int64_t wanted = kWantedWarps * std::min(std::max<int64_t>(multiprocessors, 1), kMostMultiprocessors);
  const int64_t warps = warps_of_chunk(s);
  if (s.n > 16) {
    plan.states = 16;
    plan.lanes = s.n <= 32 ? 2 : (s.n <= 64 ? 4 : 16);
  } else {  // more lanes only where chunks alone cannot give half the warps
    plan.lanes = 1;
    while (plan.lanes < 4 && 2 * warps * plan.lanes * most_chunks(s) < wanted) plan.lanes *= 2;
    plan.states = 16 / plan.lanes;
  }
  int64_t chunks = std::min(most_chunks(s), divide_up(wanted, warps * plan.lanes));
  if (chunks == 2) {  // two chunks do all the work twice: no faster than one
    chunks = 1;
    if (s.n <= 16 && plan.lanes < 4) {
      plan.lanes *= 2;
      plan.states /= 2;
    }
  }
  plan.channels = plan.lanes == 1 ? 64 : (plan.lanes == 16 ? 8 : 32);
  plan.blocks = divide_up(s.d, plan.channels);
  plan.chunk = std::max<int64_t>(1, s.L());
  plan.chunks = 1;
  if (chunks > 1) {
    plan.chunk = round_up(divide_up(s.L(), chunks), 32);
    plan.chunks = divide_up(s.L(), plan.chunk);
  }
  return plan;
}

Scan2dWorkspace Scan2dWorkspace::of(const Scan2dShape& s, int64_t images_times_chunks) {
  Scan2dWorkspace w{};
  w.states = round_up(2 * s.b * s.L() * s.d, 4);
  w.sums = w.states + round_up(images_times_chunks * kRoutes * s.n * s.d, 4);
  w.floats = w.sums + round_up(images_times_chunks * kRoutes * s.d, 4);
  return w;
}

size_t scan2d_workspace_bytes(int64_t b, int64_t H, int64_t W, int64_t d, int64_t n, int64_t R) {
  const Scan2dShape s{b, H, W, d, n, R};
  if (!valid(s) || b == 0 || s.L() == 0) return 0;
  return static_cast<size_t>(Scan2dWorkspace::of(s, most_images_times_chunks(s)).floats) * sizeof(float);
}

}  // namespace cuda
}  // namespace vmkla
