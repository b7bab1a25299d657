// One direction of one chunk of selective_scan2d, as the threads of a block work on it together.
#pragma once
#include <cfloat>

#include "../kernels/selective_scan2d.h"
#include "device.h"

namespace vmkla {
namespace cuda {

using kernels::Channels;
using kernels::kRoutes;
constexpr int kRankSlice = 64;  // ranks of dt that are in shared memory at a time
constexpr int kWarps = 16;      // of a multiprocessor, at least: up to 128 registers a thread

// Visits whose sums over a channel's lanes are taken together: enough for every lane to have one.
__host__ __device__ constexpr int group_of(int lanes) { return lanes < 4 ? 2 : 4; }

// What all kernels of one scan are given.
struct Scan2dTask {
  int H, W, d, n, R, L;
  int64_t chunk, chunks, blocks;
  int images;
  int b_pack, dt_pack;  // elements of p that one access moves: of B and C, of dt
  const void *u, *p, *dt_weight;
  const float *A, *D, *delta_bias;
  float *partial, *states, *sums;  // states is null where a route is one chunk
  void* y;

  // Of image's and route k's chunk: its number times what there is of it.
  __device__ __forceinline__ int64_t part(int64_t image, int k, int64_t chunk_number) const {
    return (image * kRoutes + k) * chunks + chunk_number;
  }
};

// Steps of a tile, which is in shared memory at a time. Always whole groups.
__host__ __device__ constexpr int tile_of(int padded_states) { return padded_states <= 64 ? 16 : 4; }

// The shared memory of one direction of a block, in floats; every part is a multiple of 16 bytes.
struct SharedLayout {
  int C, dt, deltas, pixels, floats, dt_stride;  // B begins at 0

  static __host__ __device__ SharedLayout of(int padded_states, int channels, int R, bool with_C) {
    const int tile = tile_of(padded_states);
    SharedLayout s{};
    s.dt_stride = ((R < kRankSlice ? R : kRankSlice) + 3) / 4 * 4;
    s.C = tile * padded_states;
    s.dt = s.C + (with_C ? tile * padded_states : 0);
    s.deltas = s.dt + tile * s.dt_stride;
    s.pixels = s.deltas + 2 * tile * channels;
    s.floats = s.pixels + 2 * tile;
    return s;
  }
};

// A in base 2. Of -inf the lowest number is left: times a delta of 0, which visits beyond a tile's count have, -inf
// would be NaN. A NaN stays one.
__device__ __forceinline__ float finite_log2e(float A) { return DeviceLane::max(-FLT_MAX, A * kernels::kLog2E); }

// Pixel number of position s along the rows (axis 0) or the columns (axis 1).
__device__ __forceinline__ int pixel_at(const Scan2dTask& q, int axis, int s) {
  if (axis == 0) return s;
  const int column = s / q.H;
  return (s - column * q.H) * q.W + column;
}

// Copies `columns` elements (whole packs) of the tile's first `rows` pixels into rows of `stride` floats; 0 below.
template <class E, int kCount, int kTile>
__device__ __forceinline__ void stage_packs(float* to, int stride, const E* from, int64_t width, const int* pixels,
                                            int rows, int columns, int thread, int threads) {
  constexpr int kStore = kCount < 4 ? kCount : 4;
  const int packs = columns / kCount;
  VMKLA_KEEP_LOOP for (int i = thread; i < kTile * packs; i += threads) {
    const int t = i / packs;
    const int column = (i - t * packs) * kCount;
    Pack<E, kCount> pack{};
    if (t < rows) pack = load_pack<E, kCount>(from + pixels[t] * width + column);
    VMKLA_UNROLL for (int j = 0; j < kCount; j += kStore) {
      Pack<float, kStore> wide;
      VMKLA_UNROLL for (int l = 0; l < kStore; ++l) wide.v[l] = to_float(pack.v[j + l]);
      store_pack(to + t * stride + column + j, wide);
    }
  }
}

template <class E, int kTile>
__device__ __forceinline__ void stage(int pack, float* to, int stride, const E* from, int64_t width, const int* pixels,
                                      int rows, int columns, int thread, int threads) {
  if (pack == kWidest<E>) {
    stage_packs<E, kWidest<E>, kTile>(to, stride, from, width, pixels, rows, columns, thread, threads);
  } else if (pack == 2) {
    stage_packs<E, 2, kTile>(to, stride, from, width, pixels, rows, columns, thread, threads);
  } else {
    stage_packs<E, 1, kTile>(to, stride, from, width, pixels, rows, columns, thread, threads);
  }
}

// The sums over a channel's lanes of a group's values. Lane l gets those of steps first_step(l), first_step(l) + 1 and
// so on, kKept of them, in sum[0], sum[1], ...: half of the values is exchanged at each step, so that no lane adds what
// another one adds too. With more lanes than values, kLanes / kGroup lanes get the same sum.
template <int kLanes>
struct LaneSums {
  static constexpr int kGroup = group_of(kLanes);
  static constexpr int kKept = kLanes < kGroup ? kGroup / kLanes : 1;

  static __device__ __forceinline__ int first_step(int lane) {
    int first = 0, width = kGroup;
    VMKLA_UNROLL for (int bit = 1; bit < kLanes; bit *= 2) {
      if (width > 1) {
        width /= 2;
        if (lane & bit) first += width;
      }
    }
    return first;
  }
  static __device__ __forceinline__ bool stores(int lane) { return lane < kGroup; }

  static __device__ __forceinline__ void add(float (&sum)[kGroup], int lane) {
    int width = kGroup;
    VMKLA_UNROLL for (int bit = 1; bit < kLanes; bit *= 2) {
      if (width > 1) {
        width /= 2;
        const bool upper = (lane & bit) != 0;
        VMKLA_UNROLL for (int i = 0; i < kGroup / 2; ++i) {
          if (i < width) {
            const float kept = upper ? sum[i + width] : sum[i];
            const float given = upper ? sum[i] : sum[i + width];
            sum[i] = kept + __shfl_xor_sync(0xffffffffu, given, bit);
          }
        }
      } else {
        sum[0] += __shfl_xor_sync(0xffffffffu, sum[0], bit);
      }
    }
  }
};

// One thread's part of one direction of a chunk: kStates states of one channel, and what it shares with its block.
template <class E, int kStates, int kLanes, int kChannels, bool kWithY>
struct ChunkScan {
  static constexpr int kPadded = kStates * kLanes;
  static constexpr int kTile = tile_of(kPadded);
  static constexpr int kGroup = group_of(kLanes);
  static constexpr int kThreads = kChannels * kLanes;  // of one direction
  static constexpr int kOwn = kLanes < kTile ? kTile / kLanes : 1;  // deltas that a thread computes in a tile
  // Four of them at once share the loads of dt_weight; with 16 states on two lanes four spill on sm_86 to sm_90.
  static constexpr int kAtOnce = kStates == 16 && kLanes == 2 ? 2 : 4;
  static constexpr int kOwnAtOnce = kOwn < kAtOnce ? kOwn : kAtOnce;

  const Scan2dTask& q;
  const int axis, direction, k;
  const int thread, lane, local, channel, readable;  // local: channel of the block; readable: channel, or the last one
  float *B, *C, *dt;
  float2* deltas;  // (tile, channels): delta, delta u
  int* pixels;     // (2, tile): of this tile and the next
  const int dt_stride;
  const E *u, *p;  // of this image
  float h[kStates], A_log2e[kStates];
  float bias, sum_of_deltas = 0.0f;

  __device__ __forceinline__ ChunkScan(const Scan2dTask& task, int axis_, int64_t image, int block, float* shared)
      : q(task),
        axis(axis_),
        direction(threadIdx.x / kThreads),
        k(axis_ + 2 * direction),
        thread(threadIdx.x % kThreads),
        lane(thread % kLanes),
        local(thread / kLanes),
        channel(block * kChannels + local),
        readable(channel < task.d ? channel : task.d - 1),
        dt_stride(SharedLayout::of(kPadded, kChannels, task.R, kWithY).dt_stride) {
    const SharedLayout layout = SharedLayout::of(kPadded, kChannels, q.R, kWithY);
    B = shared + direction * layout.floats;
    C = B + layout.C;
    dt = B + layout.dt;
    deltas = reinterpret_cast<float2*>(B + layout.deltas);
    pixels = reinterpret_cast<int*>(B + layout.pixels);
    u = static_cast<const E*>(q.u) + image * q.L * q.d;
    p = static_cast<const E*>(q.p) + image * q.L * Channels::of(0, q.n, q.R).width;
    bias = q.delta_bias[k * q.d + readable];
    const float* A = q.A + static_cast<int64_t>(k) * q.n * q.d + readable;
    VMKLA_UNROLL for (int j = 0; j < kStates; ++j) {
      const int s = state(j);
      A_log2e[j] = s < q.n ? finite_log2e(A[static_cast<int64_t>(s) * q.d]) : 0.0f;
      h[j] = 0.0f;
    }
    // The columns of B and C beyond n are read with the others and never written again.
    VMKLA_KEEP_LOOP for (int i = thread; i < kTile * kPadded; i += kThreads) {
      if (i % kPadded >= q.n) {
        B[i] = 0.0f;
        if (kWithY) C[i] = 0.0f;
      }
    }
  }

  // A channel's states are dealt to its lanes in fours, so that the lanes' reads of shared memory lie side by side.
  __device__ __forceinline__ int state(int j) const { return ((j / 4) * kLanes + lane) * 4 + j % 4; }

  __device__ __forceinline__ float* states_of(int64_t part) const {
    return q.states + part * q.n * q.d + channel;
  }
  __device__ __forceinline__ void load_states(int64_t part) {
    const float* from = q.states + part * q.n * q.d + readable;
    VMKLA_UNROLL for (int j = 0; j < kStates; ++j) {
      if (state(j) < q.n) h[j] = from[static_cast<int64_t>(state(j)) * q.d];
    }
  }
  __device__ __forceinline__ void store_states(int64_t part) const {
    if (channel >= q.d) return;
    float* to = q.states + part * q.n * q.d + channel;
    VMKLA_UNROLL for (int j = 0; j < kStates; ++j) {
      if (state(j) < q.n) to[static_cast<int64_t>(state(j)) * q.d] = h[j];
    }
  }

  // Notes the pixels of the tile whose first visit is at position `at`, `count` of them.
  __device__ __forceinline__ void note_pixels(int which, int at, int count) {
    if (thread < kTile && thread < count) {
      pixels[which * kTile + thread] = pixel_at(q, axis, direction == 0 ? at + thread : at - thread);
    }
  }

  // B, C and the first ranks of dt of a tile.
  __device__ __forceinline__ void stage_tile(const int* pixel, int count) {
    const Channels c = Channels::of(k, q.n, q.R);
    stage<E, kTile>(q.b_pack, B, kPadded, p + c.B, c.width, pixel, count, q.n, thread, kThreads);
    if (kWithY) stage<E, kTile>(q.b_pack, C, kPadded, p + c.C, c.width, pixel, count, q.n, thread, kThreads);
    stage_ranks(pixel, count, 0);
  }
  __device__ __forceinline__ int ranks_from(int first) const {
    return q.R - first < kRankSlice ? q.R - first : kRankSlice;
  }
  __device__ __forceinline__ void stage_ranks(const int* pixel, int count, int first) {
    const Channels c = Channels::of(k, q.n, q.R);
    stage<E, kTile>(q.dt_pack, dt, dt_stride, p + c.dt + first, c.width, pixel, count, ranks_from(first), thread,
                    kThreads);
  }

  // Adds the ranks in shared memory to the thread's own deltas; after the last ones makes them delta and delta u.
  // Visits beyond the tile's count get a delta of 0, which leaves a state as it is.
  __device__ __forceinline__ void add_ranks(const int* pixel, int count, int first) {
    const int ranks = ranks_from(first);
    const bool last = first + ranks == q.R;
    const E* weight = static_cast<const E*>(q.dt_weight) + (static_cast<int64_t>(k) * q.R + first) * q.d + readable;
    VMKLA_KEEP_LOOP for (int begin = 0; begin < kOwn; begin += kOwnAtOnce) {
      float z[kOwnAtOnce], x[kOwnAtOnce];
      VMKLA_UNROLL for (int i = 0; i < kOwnAtOnce; ++i) {
        const int t = (begin + i) * kLanes + lane;
        z[i] = bias;
        x[i] = 0.0f;
        if (t < kTile) {
          if (first > 0) z[i] = deltas[t * kChannels + local].x;
          if (last && t < count) x[i] = to_float(u[static_cast<int64_t>(pixel[t]) * q.d + readable]);
        }
      }
      int r = 0;
      VMKLA_KEEP_LOOP for (; r + 4 <= ranks; r += 4) {
        float w[4];
        VMKLA_UNROLL for (int l = 0; l < 4; ++l) w[l] = to_float(weight[static_cast<int64_t>(r + l) * q.d]);
        VMKLA_UNROLL for (int i = 0; i < kOwnAtOnce; ++i) {
          const int t = (begin + i) * kLanes + lane;
          if (t < kTile) {
            const Pack<float, 4> ranks_of_t = load_pack<float, 4>(dt + t * dt_stride + r);
            VMKLA_UNROLL for (int l = 0; l < 4; ++l) z[i] = fmaf(ranks_of_t.v[l], w[l], z[i]);
          }
        }
      }
      VMKLA_KEEP_LOOP for (; r < ranks; ++r) {
        const float w = to_float(weight[static_cast<int64_t>(r) * q.d]);
        VMKLA_UNROLL for (int i = 0; i < kOwnAtOnce; ++i) {
          const int t = (begin + i) * kLanes + lane;
          if (t < kTile) z[i] = fmaf(dt[t * dt_stride + r], w, z[i]);
        }
      }
      VMKLA_UNROLL for (int i = 0; i < kOwnAtOnce; ++i) {
        const int t = (begin + i) * kLanes + lane;
        if (t < kTile) {
          float2 delta = make_float2(z[i], 0.0f);
          if (last) {
            delta.x = t < count ? kernels::softplus<DeviceLane>(z[i]) : 0.0f;
            delta.y = delta.x * x[i];
          }
          deltas[t * kChannels + local] = delta;
        }
      }
    }
  }

  // kGroup visits from t on. With y, sum[i] becomes this lane's part of visit t + i's.
  __device__ __forceinline__ void visit(int t, float (&sum)[kGroup]) {
    VMKLA_UNROLL for (int i = 0; i < kGroup; ++i) {
      const float2 delta = deltas[(t + i) * kChannels + local];
      sum_of_deltas += delta.x;
      float parts[2] = {0.0f, 0.0f};
      VMKLA_UNROLL for (int j = 0; j < kStates; j += 4) {
        const int column = (t + i) * kPadded + state(j);
        const Pack<float, 4> b = load_pack<float, 4>(B + column);
        Pack<float, 4> c{};
        if (kWithY) c = load_pack<float, 4>(C + column);
        VMKLA_UNROLL for (int l = 0; l < 4; ++l) {
          h[j + l] = kernels::next_state<DeviceLane>(h[j + l], delta.x, A_log2e[j + l], delta.y, b.v[l]);
          if (kWithY) parts[l & 1] = fmaf(h[j + l], c.v[l], parts[l & 1]);
        }
      }
      sum[i] = parts[0] + parts[1];
    }
  }

  // The tile's visits, y going to `y` (this image's partial sums): added where the other direction has been before.
  __device__ __forceinline__ void visit_tile(const int* pixel, int count, float* y, bool second) {
    using Sums = LaneSums<kLanes>;
    const int first_step = Sums::first_step(lane);
    const bool writes = kWithY && channel < q.d && Sums::stores(lane);
    VMKLA_KEEP_LOOP for (int t = 0; t < kTile; t += kGroup) {
      float before[Sums::kKept];  // read before the visits, whose time hides the latency
      VMKLA_UNROLL for (int i = 0; i < Sums::kKept; ++i) {
        const int step = t + first_step + i;
        before[i] = second && writes && step < count ? y[static_cast<int64_t>(pixel[step]) * q.d + channel] : 0.0f;
      }
      float sum[kGroup];
      visit(t, sum);
      if (kWithY) {
        Sums::add(sum, lane);
        VMKLA_UNROLL for (int i = 0; i < Sums::kKept; ++i) {
          const int step = t + first_step + i;
          if (writes && step < count) y[static_cast<int64_t>(pixel[step]) * q.d + channel] = sum[i] + before[i];
        }
      }
    }
  }

  // Visits number `begin` to `end` of this direction of the chunk at positions [low, high), in `tiles` tiles, the same
  // number for both directions: the block meets at barriers.
  __device__ __forceinline__ void scan(int low, int high, int begin, int end, int tiles, float* y, bool second) {
    const int first = direction == 0 ? low + begin : high - 1 - begin;
    const int step = direction == 0 ? kTile : -kTile;
    note_pixels(0, first, end - begin);
    VMKLA_KEEP_LOOP for (int tile = 0; tile < tiles; ++tile) {
      const int left = end - begin - tile * kTile;
      const int count = left < 0 ? 0 : (left < kTile ? left : kTile);
      const int* pixel = pixels + tile % 2 * kTile;
      __syncthreads();  // the last tile is no longer read; this one's pixels are noted
      if (count > 0) stage_tile(pixel, count);
      __syncthreads();
      if (count > 0) add_ranks(pixel, count, 0);
      for (int ranks = kRankSlice; ranks < q.R; ranks += kRankSlice) {
        __syncthreads();
        if (count > 0) stage_ranks(pixel, count, ranks);
        __syncthreads();
        if (count > 0) add_ranks(pixel, count, ranks);
      }
      note_pixels((tile + 1) % 2, first + (tile + 1) * step, left - kTile);
      __syncwarp();  // a channel's lanes, all of one warp, read each other's deltas
      if (count > 0) visit_tile(pixel, count, y, second);
    }
    __syncthreads();
  }
};

}  // namespace cuda
}  // namespace vmkla
