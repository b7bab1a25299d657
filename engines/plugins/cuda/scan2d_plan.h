// How a scan is cut into blocks and chunks, and what it keeps in the workspace. Plain C++.
#pragma once
#include <cstddef>
#include <cstdint>

#include "launch.h"

namespace vmkla {
namespace cuda {

struct Scan2dShape {
  int64_t b, H, W, d, n, R;
  int64_t L() const { return H * W; }
};

// Chunks are no shorter than this: shorter ones would spend more on their states than on their pixels.
constexpr int64_t kShortestChunk = 64;
// Warps wanted per multiprocessor: four a scheduler. Each has up to 16 independent exponentials at hand.
constexpr int64_t kWantedWarps = 16;
// Multiprocessors beyond which chunks get no more: it bounds the workspace.
constexpr int64_t kMostMultiprocessors = 192;

struct Scan2dPlan {
  int states, lanes;   // states of a thread, threads of a channel; states x lanes >= n
  int channels;        // of a block
  int64_t blocks;      // blocks of channels
  int64_t chunk, chunks;  // steps of a chunk; chunks of a route

  int threads() const { return 2 * channels * lanes; }  // half of them go forwards, half backwards
};

bool valid(const Scan2dShape& shape);
Scan2dPlan plan_scan2d(const Scan2dShape& shape, int64_t multiprocessors);

// Where the parts of the workspace begin, in floats, and its size.
struct Scan2dWorkspace {
  int64_t states, sums, floats;  // the partial sums of y begin at 0: (2, b, L, d)

  // states: (b, 4, chunks, n, d); sums: (b, 4, chunks, d). With one chunk there are none.
  static Scan2dWorkspace of(const Scan2dShape& shape, int64_t images_times_chunks);
};

}  // namespace cuda
}  // namespace vmkla
