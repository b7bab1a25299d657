// Forward scan of a block of channels of one image. Included once per instruction set by isa_kernels.cpp.
#pragma once
#include <cstdlib>

#include "../kernels/selective_scan2d.h"
#include "isa.h"
#include "simd.h"

namespace vmkla {
namespace VMKLA_KERNELS_NAMESPACE {

// Loops over the states of a channel, unrolled where their number is known: the states then live in registers.
#define VMKLA_UNROLL_STATES _Pragma("GCC unroll 16")

constexpr int64_t kTile = 32;  // pixels whose deltas are computed together: their softplus chains then overlap

// What a task keeps of a route's parameters, for its kLanes channels: padded with zeros, contiguous.
struct RouteParameters {
  Lanes::V *A_log2e, *dt_weight, bias;  // n, R, 1 vectors
  Lanes::V largest_A_log2e;             // by magnitude

  void load(const ScanShape& s, int k, int64_t channel, const float* A, const float* weight, const float* delta_bias) {
    const int64_t count = s.d - channel;
    largest_A_log2e = Lanes::V{};
    for (int64_t j = 0; j < s.n; ++j) {
      A_log2e[j] = Lanes::load(A + (k * s.n + j) * s.d + channel, count) * Lanes::set(kLog2E);
      largest_A_log2e = Lanes::max(Lanes::abs(A_log2e[j]), largest_A_log2e);
    }
    for (int64_t r = 0; r < s.R; ++r) dt_weight[r] = Lanes::load(weight + (k * s.R + r) * s.d + channel, count);
    bias = Lanes::load(delta_bias + k * s.d + channel, count);
  }
  // No exponent of these deltas lies below -126. A NaN counts as in range: it stays one either way.
  bool in_range(const Lanes::V* delta, int64_t count) const {
    if (Lanes::kSaturates) return true;
    Lanes::V largest{};
    for (int64_t t = 0; t < count; ++t) largest = Lanes::max(delta[t], largest);
    return Lanes::all(largest * largest_A_log2e <= 126.0f);
  }
};

// Vectors for one task's own use.
class Scratch {
 public:
  explicit Scratch(int64_t vectors)
      : memory_(allocate(static_cast<size_t>(vectors) * sizeof(Lanes::V))),
        next_(static_cast<Lanes::V*>(memory_)) {}
  ~Scratch() { std::free(memory_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  Lanes::V* take(int64_t vectors) {
    Lanes::V* taken = next_;
    next_ += vectors;
    return taken;
  }

 private:
  void* memory_;
  Lanes::V* next_;
};

struct Tile {
  int64_t first, step, length;  // first pixel, distance between visits, both in pixels; number of visits
};

// delta of every pixel of a tile (at most kTile). `dt` points at pixel 0's; eight pixels at a time, so that eight sums
// run side by side and each weight is loaded once for all of them. Not inlined: the loop over the states then gets the
// registers, which made the scan 1 to 2 % faster on AVX2.
static __attribute__((noinline)) void deltas_of(const RouteParameters& q, const float* dt, const Tile& tile,
                                                int64_t row_width, int64_t R, Lanes::V* delta) {
  using V = Lanes::V;
  const int64_t stride = tile.step * row_width;
  dt += tile.first * row_width;
  int64_t t = 0;
  for (; t + 8 <= tile.length; t += 8, dt += 8 * stride) {
    V z0 = q.bias, z1 = z0, z2 = z0, z3 = z0, z4 = z0, z5 = z0, z6 = z0, z7 = z0;
    for (int64_t r = 0; r < R; ++r) {
      const V w = q.dt_weight[r];
      const float* x = dt + r;
      z0 = Lanes::fma(Lanes::set(x[0]), w, z0);
      z1 = Lanes::fma(Lanes::set(x[stride]), w, z1);
      z2 = Lanes::fma(Lanes::set(x[2 * stride]), w, z2);
      z3 = Lanes::fma(Lanes::set(x[3 * stride]), w, z3);
      z4 = Lanes::fma(Lanes::set(x[4 * stride]), w, z4);
      z5 = Lanes::fma(Lanes::set(x[5 * stride]), w, z5);
      z6 = Lanes::fma(Lanes::set(x[6 * stride]), w, z6);
      z7 = Lanes::fma(Lanes::set(x[7 * stride]), w, z7);
    }
    delta[t] = z0, delta[t + 1] = z1, delta[t + 2] = z2, delta[t + 3] = z3;
    delta[t + 4] = z4, delta[t + 5] = z5, delta[t + 6] = z6, delta[t + 7] = z7;
  }
  for (; t < tile.length; ++t, dt += stride) {
    V z = q.bias;
    for (int64_t r = 0; r < R; ++r) z = Lanes::fma(Lanes::set(dt[r]), q.dt_weight[r], z);
    delta[t] = z;
  }
  for (t = 0; t < tile.length; ++t) delta[t] = softplus<Lanes>(delta[t]);
}

// A task: neighbouring blocks of kLanes channels of one image. They share each tile of p while it is in the L1 cache,
// and their loads of u and y are one run of memory, whatever the route.
struct ForwardTasks {
  int64_t blocks, group, groups;  // per image; the last group may be smaller

  explicit ForwardTasks(const ScanShape& s) : blocks((s.d + kLanes - 1) / kLanes) {
    group = blocks / 4 < 1 ? 1 : (blocks / 4 > 4 ? 4 : blocks / 4);  // at least four tasks where there are four blocks
    groups = (blocks + group - 1) / group;
  }
};

// One tile of one block. N: states per channel when known at compile time (they then stay in registers), else 0.
// kInRange: what RouteParameters::in_range found; an instruction per state less.
template <int N, bool kInRange>
VMKLA_HD void scan_forward_tile(const ScanShape& s, const RouteParameters& q, const Channels& c, const Tile& tile,
                                const float* p, const float* u, float* y, const Lanes::V* delta, Lanes::V* state,
                                bool first_route, Lanes::V D, int64_t lanes) {
  using V = Lanes::V;
  const int64_t n = N ? N : s.n;
  V registers[N ? N : 1];
  V* h = N ? registers : state;
  VMKLA_UNROLL_STATES for (int64_t j = 0; j < N; ++j) h[j] = state[j];
  for (int64_t t = 0; t < tile.length; ++t) {
    const int64_t pixel = tile.first + t * tile.step;
    const float* B = p + pixel * c.width + c.B;
    const float* C = p + pixel * c.width + c.C;
    const V x = Lanes::load(u + pixel * s.d, lanes);
    const V delta_u = delta[t] * x;
    V sum[2] = {first_route ? D * x : Lanes::load(y + pixel * s.d, lanes), V{}};
    VMKLA_UNROLL_STATES for (int64_t j = 0; j < n; ++j) {
      h[j] = next_state<Lanes, kInRange>(h[j], delta[t], q.A_log2e[j], delta_u, Lanes::set(B[j]));
      sum[j & 1] = Lanes::fma(h[j], Lanes::set(C[j]), sum[j & 1]);
    }
    Lanes::store(y + pixel * s.d, sum[0] + sum[1], lanes);
  }
  VMKLA_UNROLL_STATES for (int64_t j = 0; j < N; ++j) state[j] = h[j];
}

template <int N>
static void scan_forward_channels(const ScanForwardF32& a, int64_t image, int64_t first_channel, int64_t blocks) {
  using V = Lanes::V;
  const ScanShape& s = a.shape;
  const int64_t n = s.n;
  const float* u = a.u + image * s.pixels() * s.d + first_channel;
  float* y = a.y + image * s.pixels() * s.d + first_channel;
  Scratch scratch(blocks * (2 * n + s.R));
  RouteParameters q[4];
  V* state[4];
  for (int64_t i = 0; i < blocks; ++i) {
    q[i] = RouteParameters{scratch.take(n), scratch.take(s.R), V{}, V{}};
    state[i] = scratch.take(n);
  }

  for (int k = 0; k < kRoutes; ++k) {
    for (int64_t i = 0; i < blocks; ++i) {
      q[i].load(s, k, first_channel + i * kLanes, a.A, a.dt_weight, a.delta_bias);
      VMKLA_UNROLL_STATES for (int64_t j = 0; j < n; ++j) state[i][j] = V{};
    }
    const Channels c = Channels::of(k, n, s.R);
    const float* p = a.p + image * s.pixels() * c.width;
    const Route route = Route::of(k, s.H, s.W);
    for (int64_t outer = 0; outer < route.outer; ++outer) {
      for (int64_t begin = 0; begin < route.inner; begin += kTile) {
        const int64_t length = route.inner - begin < kTile ? route.inner - begin : kTile;
        const Tile tile{route.first + outer * route.outer_step + begin * route.inner_step, route.inner_step, length};
        for (int64_t i = 0; i < blocks; ++i) {
          const int64_t channel = first_channel + i * kLanes, lanes = s.d - channel;
          const V D = Lanes::load(a.D + channel, lanes);
          const float* u_block = u + i * kLanes;
          float* y_block = y + i * kLanes;
          V delta[kTile];
          deltas_of(q[i], p + c.dt, tile, c.width, s.R, delta);
          // The calls differ in what the compiler knows: full vectors need no partial loads.
          const bool in_range = q[i].in_range(delta, length);
          if (lanes >= kLanes && in_range) {
            scan_forward_tile<N, true>(s, q[i], c, tile, p, u_block, y_block, delta, state[i], k == 0, D, kLanes);
          } else if (lanes >= kLanes) {
            scan_forward_tile<N, false>(s, q[i], c, tile, p, u_block, y_block, delta, state[i], k == 0, D, kLanes);
          } else {
            scan_forward_tile<N, false>(s, q[i], c, tile, p, u_block, y_block, delta, state[i], k == 0, D, lanes);
          }
        }
      }
    }
  }
}

static size_t scan_forward_tasks(const ScanForwardF32& a) {
  return static_cast<size_t>(a.shape.b * ForwardTasks(a.shape).groups);
}

static void scan_forward(const ScanForwardF32& a, size_t task) {
  const FlushDenormals flush;
  const ForwardTasks tasks(a.shape);
  const int64_t image = static_cast<int64_t>(task) / tasks.groups;
  const int64_t first = static_cast<int64_t>(task) % tasks.groups * tasks.group;
  const int64_t blocks = tasks.blocks - first < tasks.group ? tasks.blocks - first : tasks.group;
  if (a.shape.n == 16) {
    scan_forward_channels<16>(a, image, first * kLanes, blocks);
  } else {
    scan_forward_channels<0>(a, image, first * kLanes, blocks);
  }
}

}  // namespace VMKLA_KERNELS_NAMESPACE
}  // namespace vmkla
