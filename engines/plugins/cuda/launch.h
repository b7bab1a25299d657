// Launching the two ops' CUDA kernels: what the TensorRT plugin and the harness call. Nothing here allocates or waits:
// every call only enqueues kernels on the stream, so it can be captured into a CUDA graph, after one call with the same
// shapes that is not: CUDA loads a kernel at its first launch, which need not work while a stream is being captured.
// Tensors are contiguous, channels last, on the current device, and 16-byte aligned (as cudaMalloc and TensorRT give
// them); other alignments are taken as well, with narrower accesses.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace vmkla {
namespace cuda {

enum class Element { kFloat, kHalf };

// What launch_scan2d takes at most: states per channel, channels, ranks.
constexpr int64_t kMaxStates = 256, kMaxChannels = 1 << 24, kMaxRank = 1 << 20;
// Knots that launch_bspline takes at most, and the largest order.
constexpr int64_t kMaxKnots = 128, kMaxOrder = 16;

// Bytes of workspace for a scan of this shape. Never smaller than that of a shape with a smaller b, H or W, so that
// what suffices for the largest shape of a profile suffices for all of it. 0 for an empty image and for shapes that
// launch_scan2d refuses.
size_t scan2d_workspace_bytes(int64_t b, int64_t H, int64_t W, int64_t d, int64_t n, int64_t R);

// selective_scan2d; definition: vmkla/ops/scan.py.
struct Scan2dArguments {
  Element element;          // of u, p, dt_weight and y
  int64_t b, H, W, d, n, R;
  const void* u;            // (b, H, W, d)
  const void* p;            // (b, H, W, 4 (2n + R))
  const void* dt_weight;    // (4, R, d)
  const float* A;           // (4, n, d), negative; what a state of -inf held is gone at each visit
  const float* D;           // (d)
  const float* delta_bias;  // (4, d)
  void* y;                  // (b, H, W, d)
  void* workspace;          // scan2d_workspace_bytes(...), 16-byte aligned
  // The GPU's size that the work is cut for; 0: the current device's. Any number is right on any GPU, so that one can
  // check what another would run.
  int multiprocessors;
};

// cudaErrorInvalidValue: a size or number below 0, or n, R or d of 0, one above its kMax, 2^31 pixels or more in an
// image, a null pointer, or a workspace that is not 16-byte aligned. An empty image (b, H or W of 0) is no work and no
// error.
cudaError_t launch_scan2d(const Scan2dArguments& arguments, cudaStream_t stream);

// bspline_basis; definition: vmkla/ops/bspline.py.
struct BsplineArguments {
  Element element;                 // of x and bases
  int64_t count;                   // elements of x
  int64_t knots, order;
  bool uniform;                    // cubic on uniform knots: grid_min + i grid_step; `grid` is then not read
  float grid_min, grid_step;
  const void* x;                   // (count)
  const float* grid;               // (knots)
  void* bases;                     // (count, knots - order - 1)
};

// cudaErrorInvalidValue: a size below 0, fewer than order + 2 knots, more than kMaxKnots of them, an order above
// kMaxOrder, `uniform` with another order than 3 or a step that is not positive, or a null pointer.
cudaError_t launch_bspline(const BsplineArguments& arguments, cudaStream_t stream);

}  // namespace cuda
}  // namespace vmkla
