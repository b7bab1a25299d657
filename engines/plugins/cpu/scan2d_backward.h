// Gradients of the scan for one image. Included once per instruction set by isa_kernels.cpp.
//
// With a_t = exp(delta_t A), h_t = a_t h_(t-1) + delta_t u_t B_t and y_t = C_t h_t, the adjoint state runs backwards:
//   g_t = C_t dy_t + a_(t+1) g_(t+1)
//   dC_t = sum_d dy_t h_t                dB_t = sum_d g_t delta_t u_t          du_t = delta_t sum_n g_t B_t
//   ddelta_t = sum_n g_t (A a_t h_(t-1) + u_t B_t)        dA = sum_t g_t delta_t a_t h_(t-1)
// and softplus'(z) = 1 - exp(-delta). States are kept at tile starts only and run again inside each tile.
#pragma once
#include "scan2d_forward.h"

namespace vmkla {
namespace VMKLA_KERNELS_NAMESPACE {

// What a task works with: one image on one route.
struct BackwardTask {
  const ScanShape& s;
  Channels c;
  const float *u, *p, *grad_y;
  float *grad_u, *grad_p;
};

// What a block of kLanes channels carries from tile to tile, and sums up.
struct BlockGradients {
  Lanes::V* adjoint;   // n: a_(t+1) g_(t+1)
  Lanes::V* A;         // n
  Lanes::V* dt_weight; // R
  Lanes::V bias;
  Lanes::V D;
  Lanes::V skip;       // D itself
};

// Working memory of one tile, shared by all blocks.
struct TileMemory {
  Lanes::V* decay;   // (tile, n): a_t
  Lanes::V* states;  // (tile + 1, n): h_(t-1), from before the tile on
  Lanes::V* delta;   // (tile)
  Lanes::V* rows;    // (tile, 2n + R): per pixel dB n, dC n, ddt R, still to be summed over the lanes
};

// Runs the states of a tile from `state` on; keeps them when `keep` is not null.
template <int N>
VMKLA_HD void run_states(const BackwardTask& k, const RouteParameters& q, const Tile& tile, const Lanes::V* delta,
                         int64_t channel, int64_t lanes, Lanes::V* state, const TileMemory* keep) {
  using V = Lanes::V;
  const int64_t n = N ? N : k.s.n;
  V registers[N ? N : 1];
  V* h = N ? registers : state;
  VMKLA_UNROLL_STATES for (int64_t j = 0; j < N; ++j) h[j] = state[j];
  for (int64_t t = 0; t < tile.length; ++t) {
    const int64_t pixel = tile.first + t * tile.step;
    const float* B = k.p + pixel * k.c.width + k.c.B;
    const V delta_u = delta[t] * Lanes::load(k.u + pixel * k.s.d + channel, lanes);
    VMKLA_UNROLL_STATES for (int64_t j = 0; j < n; ++j) {
      const V a = exp2<Lanes>(delta[t] * q.A_log2e[j]);
      if (keep) {
        keep->decay[t * n + j] = a;
        keep->states[t * n + j] = h[j];
      }
      h[j] = Lanes::fma(a, h[j], delta_u * Lanes::set(B[j]));
    }
  }
  VMKLA_UNROLL_STATES for (int64_t j = 0; j < N; ++j) state[j] = h[j];
  if (keep) {
    for (int64_t j = 0; j < n; ++j) keep->states[tile.length * n + j] = h[j];
  }
}

template <int N>
VMKLA_HD void run_adjoint(const BackwardTask& k, const RouteParameters& q, const Tile& tile, const TileMemory& m,
                          int64_t channel, int64_t lanes, bool first_route, BlockGradients& sum) {
  using V = Lanes::V;
  const int64_t n = N ? N : k.s.n, R = k.s.R, row_width = 2 * n + R;
  for (int64_t t = tile.length; t-- > 0;) {
    const int64_t pixel = tile.first + t * tile.step;
    const float* row = k.p + pixel * k.c.width;
    const float *B = row + k.c.B, *C = row + k.c.C, *dt = row + k.c.dt;
    const V x = Lanes::load(k.u + pixel * k.s.d + channel, lanes);
    const V dy = Lanes::load(k.grad_y + pixel * k.s.d + channel, lanes);
    const V delta = m.delta[t], delta_u = delta * x;
    const V *before = m.states + t * n, *after = before + n, *decay = m.decay + t * n;
    V* sums = m.rows + t * row_width;
    V through_u{}, through_decay{};
#pragma GCC unroll 2
    for (int64_t j = 0; j < n; ++j) {
      const V g = Lanes::fma(Lanes::set(C[j]), dy, sum.adjoint[j]);
      const V g_decay = g * decay[j];
      const V g_decay_h = g_decay * before[j];
      sum.adjoint[j] = g_decay;
      sums[j] = Lanes::fma(g, delta_u, sums[j]);
      sums[n + j] = Lanes::fma(dy, after[j], sums[n + j]);
      through_u = Lanes::fma(g, Lanes::set(B[j]), through_u);
      through_decay = Lanes::fma(g_decay_h, q.A_log2e[j], through_decay);
      sum.A[j] = Lanes::fma(g_decay_h, delta, sum.A[j]);
    }
    float* grad_u = k.grad_u + pixel * k.s.d + channel;
    const V du = Lanes::fma(delta, through_u, first_route ? sum.skip * dy : Lanes::load(grad_u, lanes));
    Lanes::store(grad_u, du, lanes);
    if (first_route) sum.D = Lanes::fma(dy, x, sum.D);
    const V d_delta = Lanes::fma(through_decay, Lanes::set(1.0f / kLog2E), x * through_u);
    const V dz = d_delta * softplus_slope<Lanes>(delta);
    sum.bias = sum.bias + dz;
    for (int64_t r = 0; r < R; ++r) {
      sums[2 * n + r] = Lanes::fma(dz, q.dt_weight[r], sums[2 * n + r]);
      sum.dt_weight[r] = Lanes::fma(dz, Lanes::set(dt[r]), sum.dt_weight[r]);
    }
  }
}

template <int N>
static void scan_backward_route(const ScanBackwardF32& a, int64_t image, int number) {
  using V = Lanes::V;
  const ScanShape& s = a.shape;
  const int64_t n = N ? N : s.n, R = s.R, L = s.pixels(), row_width = 2 * n + R;
  const int64_t blocks = (s.d + kLanes - 1) / kLanes;
  const Route route = Route::of(number, s.H, s.W);
  const int64_t tiles_per_run = (route.inner + kTile - 1) / kTile, tiles = route.outer * tiles_per_run;
  const Channels c = Channels::of(number, n, R);
  const BackwardTask task{s,
                          c,
                          a.u + image * L * s.d,
                          a.p + image * L * c.width,
                          a.grad_y + image * L * s.d,
                          a.grad_u + image * L * s.d,
                          a.grad_p + image * L * c.width};
  const auto tile_at = [&](int64_t i) {
    const int64_t outer = i / tiles_per_run, begin = i % tiles_per_run * kTile;
    const int64_t length = route.inner - begin < kTile ? route.inner - begin : kTile;
    return Tile{route.first + outer * route.outer_step + begin * route.inner_step, route.inner_step, length};
  };

  Scratch scratch(n + R + blocks * (tiles + 2) * n + blocks * R + kTile * (2 * n + 1 + row_width) + 2 * n);
  RouteParameters q{scratch.take(n), scratch.take(R), V{}, V{}};
  V* saved = scratch.take(blocks * tiles * n);  // state before each tile
  V* adjoint = scratch.take(blocks * n);
  V* grad_A = scratch.take(blocks * n);
  V* grad_weight = scratch.take(blocks * R);
  V* state = scratch.take(n);
  const TileMemory memory{scratch.take(kTile * n), scratch.take((kTile + 1) * n), scratch.take(kTile),
                          scratch.take(kTile * row_width)};
  for (int64_t i = 0; i < blocks * n; ++i) adjoint[i] = grad_A[i] = V{};
  for (int64_t i = 0; i < blocks * R; ++i) grad_weight[i] = V{};

  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t channel = block * kLanes, lanes = s.d - channel;
    q.load(s, number, channel, a.A, a.dt_weight, a.delta_bias);
    for (int64_t j = 0; j < n; ++j) state[j] = V{};
    for (int64_t i = 0; i < tiles; ++i) {
      const Tile tile = tile_at(i);
      for (int64_t j = 0; j < n; ++j) saved[(block * tiles + i) * n + j] = state[j];
      deltas_of(q, task.p + c.dt, tile, c.width, R, memory.delta);
      run_states<N>(task, q, tile, memory.delta, channel, lanes, state, nullptr);
    }
  }

  for (int64_t i = tiles; i-- > 0;) {
    const Tile tile = tile_at(i);
    for (int64_t row = 0; row < tile.length * row_width; ++row) memory.rows[row] = V{};
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t channel = block * kLanes, lanes = s.d - channel;
      float* grad_D = a.grad_D + image * s.d + channel;
      float* grad_bias = a.grad_delta_bias + (image * kRoutes + number) * s.d + channel;
      q.load(s, number, channel, a.A, a.dt_weight, a.delta_bias);
      deltas_of(q, task.p + c.dt, tile, c.width, R, memory.delta);
      run_states<N>(task, q, tile, memory.delta, channel, lanes, saved + (block * tiles + i) * n, &memory);
      BlockGradients sum{adjoint + block * n, grad_A + block * n, grad_weight + block * R,
                         Lanes::load(grad_bias, lanes), Lanes::load(grad_D, lanes),
                         Lanes::load(a.D + channel, lanes)};
      run_adjoint<N>(task, q, tile, memory, channel, lanes, number == 0, sum);
      Lanes::store(grad_bias, sum.bias, lanes);
      Lanes::store(grad_D, sum.D, lanes);
    }
    for (int64_t t = 0; t < tile.length; ++t) {
      float* row = task.grad_p + (tile.first + t * tile.step) * c.width;
      const V* sums = memory.rows + t * row_width;
      for (int64_t j = 0; j < n; ++j) row[c.B + j] = Lanes::sum(sums[j]);
      for (int64_t j = 0; j < n; ++j) row[c.C + j] = Lanes::sum(sums[n + j]);
      for (int64_t r = 0; r < R; ++r) row[c.dt + r] = Lanes::sum(sums[2 * n + r]);
    }
  }

  const int64_t part = image * kRoutes + number;
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t channel = block * kLanes, lanes = s.d - channel;
    for (int64_t j = 0; j < n; ++j) {
      Lanes::store(a.grad_A + (part * n + j) * s.d + channel, grad_A[block * n + j], lanes);
    }
    for (int64_t r = 0; r < R; ++r) {
      Lanes::store(a.grad_dt_weight + (part * R + r) * s.d + channel, grad_weight[block * R + r], lanes);
    }
  }
}

static void scan_backward(const ScanBackwardF32& a, size_t image) {
  const FlushDenormals flush;
  for (int k = 0; k < kRoutes; ++k) {
    if (a.shape.n == 16) {
      scan_backward_route<16>(a, static_cast<int64_t>(image), k);
    } else {
      scan_backward_route<0>(a, static_cast<int64_t>(image), k);
    }
  }
}

}  // namespace VMKLA_KERNELS_NAMESPACE
}  // namespace vmkla
