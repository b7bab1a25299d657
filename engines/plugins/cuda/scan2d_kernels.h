// The kernels of selective_scan2d. See selective_scan2d.cu for how they work together.
#pragma once
#include "scan2d_chunk.h"

namespace vmkla {
namespace cuda {

// Which chunk of which image a block has.
struct BlockPlace {
  int block, axis, low, high;  // high and low: positions
  int64_t chunk, image;

  static __device__ __forceinline__ BlockPlace of(const Scan2dTask& q) {
    BlockPlace place;
    int64_t i = blockIdx.x;  // blocks that read the same pixels of p run side by side
    place.block = static_cast<int>(i % q.blocks);
    i /= q.blocks;
    place.axis = static_cast<int>(i % 2);
    i /= 2;
    place.chunk = i % q.chunks;
    place.image = i / q.chunks;
    const int64_t low = place.chunk * q.chunk;
    place.low = static_cast<int>(low);
    place.high = static_cast<int>(low + q.chunk < q.L ? low + q.chunk : q.L);
    return place;
  }
};

// First pass: the state in which every chunk ends if it begins at 0, and the sum of its deltas.
template <class E, int kStates, int kLanes, int kChannels>
__global__ void __launch_bounds__(2 * kChannels * kLanes, 32 * kWarps / (2 * kChannels * kLanes))
    chunk_ends(const Scan2dTask q) {
  VMKLA_DYNAMIC_SHARED(memory);
  const BlockPlace at = BlockPlace::of(q);
  using Scan = ChunkScan<E, kStates, kLanes, kChannels, false>;
  Scan scan(q, at.axis, at.image, at.block, reinterpret_cast<float*>(memory));
  const int length = at.high - at.low;
  scan.scan(at.low, at.high, 0, length, (length + Scan::kTile - 1) / Scan::kTile, nullptr, false);
  const int64_t part = q.part(at.image, scan.k, at.chunk);
  scan.store_states(part);
  if (scan.lane == 0 && scan.channel < q.d) q.sums[part * q.d + scan.channel] = scan.sum_of_deltas;
}

// Second pass, in place: from the state that each chunk adds to the one that it begins with. One state a thread.
template <int kAhead>
__global__ void __launch_bounds__(128) carry_chunks(const Scan2dTask q) {
  const int64_t number = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (number >= static_cast<int64_t>(q.images) * kRoutes * q.n * q.d) return;
  const int c = static_cast<int>(number % q.d);
  const int64_t state = number / q.d % q.n;
  const int k = static_cast<int>(number / q.d / q.n % kRoutes);
  const int64_t image = number / q.d / q.n / kRoutes;
  const float A_log2e = finite_log2e(q.A[(k * q.n + state) * q.d + c]);
  float h = 0.0f;
  for (int64_t first = 0; first < q.chunks; first += kAhead) {
    float added[kAhead], sum[kAhead];  // all loads first: they do not wait for each other
    VMKLA_UNROLL for (int i = 0; i < kAhead; ++i) {
      if (first + i < q.chunks) {
        const int64_t part = q.part(image, k, k < 2 ? first + i : q.chunks - 1 - first - i);
        added[i] = q.states[(part * q.n + state) * q.d + c];
        sum[i] = q.sums[part * q.d + c];
      }
    }
    VMKLA_UNROLL for (int i = 0; i < kAhead; ++i) {
      if (first + i < q.chunks) {
        const int64_t part = q.part(image, k, k < 2 ? first + i : q.chunks - 1 - first - i);
        q.states[(part * q.n + state) * q.d + c] = h;
        h = fmaf(exp2_approximate(sum[i] * A_log2e), h, added[i]);
      }
    }
  }
}

// Third pass: every chunk from the state that it begins with, y into the partial sums of its axis. The two directions
// meet in the middle of the chunk: until there each writes, from there on it adds to what the other one wrote.
template <class E, int kStates, int kLanes, int kChannels>
__global__ void __launch_bounds__(2 * kChannels * kLanes, 32 * kWarps / (2 * kChannels * kLanes))
    scan_chunks(const Scan2dTask q) {
  VMKLA_DYNAMIC_SHARED(memory);
  const BlockPlace at = BlockPlace::of(q);
  using Scan = ChunkScan<E, kStates, kLanes, kChannels, true>;
  Scan scan(q, at.axis, at.image, at.block, reinterpret_cast<float*>(memory));
  if (q.states != nullptr) scan.load_states(q.part(at.image, scan.k, at.chunk));
  float* y = q.partial + (static_cast<int64_t>(at.axis) * q.images + at.image) * q.L * q.d;
  const int length = at.high - at.low;
  const int half = (length + 1) / 2;
  const int lower = (half + Scan::kTile - 1) / Scan::kTile * Scan::kTile;  // positions below the middle: whole tiles
  const int upper = lower < length ? length - lower : 0;
  const int middle = scan.direction == 0 ? length - upper : upper;  // visits until there
  const int lower_tiles = (length - upper + Scan::kTile - 1) / Scan::kTile;
  const int upper_tiles = (upper + Scan::kTile - 1) / Scan::kTile;
  const int tiles = lower_tiles > upper_tiles ? lower_tiles : upper_tiles;
  scan.scan(at.low, at.high, 0, middle, tiles, y, false);
  scan.scan(at.low, at.high, middle, length, tiles, y, true);
}

// Last pass: y = D u + the rows' part + the columns' part, rounded once.
template <class E, int kCount>
__global__ void __launch_bounds__(256) add_parts(const Scan2dTask q) {
  const int64_t elements = static_cast<int64_t>(q.images) * q.L * q.d;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x * kCount;
  const E* u = static_cast<const E*>(q.u);
  E* y = static_cast<E*>(q.y);
  constexpr int kWide = kCount < 4 ? kCount : 4;
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * kCount; i < elements; i += stride) {
    const int c = static_cast<int>(i % q.d);
    const Pack<E, kCount> x = load_pack<E, kCount>(u + i);
    Pack<E, kCount> out;
    VMKLA_UNROLL for (int j = 0; j < kCount; j += kWide) {
      const auto skip = load_pack<float, kWide>(q.D + c + j);
      const auto rows = load_pack<float, kWide>(q.partial + i + j);
      const auto columns = load_pack<float, kWide>(q.partial + elements + i + j);
      VMKLA_UNROLL for (int l = 0; l < kWide; ++l) {
        out.v[j + l] = from_float<E>(fmaf(skip.v[l], to_float(x.v[j + l]), rows.v[l] + columns.v[l]));
      }
    }
    store_pack(y + i, out);
  }
}

}  // namespace cuda
}  // namespace vmkla
