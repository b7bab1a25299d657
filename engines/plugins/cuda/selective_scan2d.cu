// selective_scan2d on a GPU. Definition: vmkla/ops/scan.py; Gu & Dao, Mamba, 2023, alg. 2 and sec. 3.3 (states computed
// again rather than kept); Blelloch, Prefix sums, 1990 (chunks and carries).
//
// Four kernels, nothing of the image copied, transposed or flipped. The L = H W visits of a route are cut into chunks:
//   chunk_ends    the state in which each chunk would end if it began at 0, and the sum of its deltas
//   carry_chunks  the state in which each chunk really begins: c <- exp(A sum) c + end, over chunks
//   scan_chunks   each chunk again from there, y into one float part for the row routes and one for the column routes
//   add_parts     y = D u + both parts, rounded once to y's type
// Where the channels alone fill the GPU, a route is one chunk and the first two are left out. No atomics: every sum has
// its order, so two runs give the same bits.
//
// A thread has all 16 states of a channel, or with few channels 8 or 4 of them (lanes of a channel then add up y by
// shuffles); the states and A stay in registers. Half of a block's threads go along the rows (or columns), half the
// other way over the same pixels, and what they add to the same part is in order by a barrier where they meet. B, C and
// dt of 16 visits at a time are in shared memory, as float, read by 16-byte accesses where n, R and the pointers allow.
// A warp's threads have neighbouring channels, so that u and the parts are read and written in runs of 128 bytes
// whatever the route: channels-last keeps the column routes coalesced.
//
// What bounds the time from below, for b images of L pixels, d channels, n states, R ranks:
//   exponentials: 4 b L d n of the special-function units, 16 a clock and multiprocessor on sm_75 to sm_90. Chunks cost
//     them twice, and each delta one reciprocal and one exponential more, so 8 b L d (n + 2) special functions are run:
//     2.25 times the floor for n = 16. Small's first stage at batch 1 (L = 4096, d = 192): 50e6, 0.014 ms on 132
//     multiprocessors at 1.76 GHz.
//   bytes: u, p and y once each, b L (2 d + 4 (2 n + R)) elements; the same stage in half: 4.4 MB, 0.0013 ms at
//     3.3 TB/s. The parts and the second reading of u and p come to six times that, from the L2 cache where they fit.
#include <algorithm>

#include "kernel_launch.h"
#include "scan2d_kernels.h"
#include "scan2d_plan.h"

namespace vmkla {
namespace cuda {
namespace {

// Elements of one access: the widest, 2 or 1, whichever divides every offset and the alignment of `pointer`.
template <class E>
int pack_for(const void* pointer, int64_t width, int64_t columns) {
  for (const int count : {kWidest<E>, 2}) {
    // Of the offsets in a pixel, those of B and C are multiples of n; dt's begins at 8 n and goes on in steps of R.
    if (width % count == 0 && columns % count == 0 && aligned(pointer, count * sizeof(E))) return count;
  }
  return 1;
}

template <class E, int kStates, int kLanes, int kChannels>
cudaError_t launch_passes(const Scan2dTask& q, cudaStream_t stream) {
  constexpr int kThreads = 2 * kChannels * kLanes;
  const auto shared = [&](bool with_C) {
    return 2 * sizeof(float) * SharedLayout::of(kStates * kLanes, kChannels, q.R, with_C).floats;
  };
  const int64_t blocks = q.images * q.chunks * 2 * q.blocks;
  cudaError_t status = cudaSuccess;
  if (q.chunks > 1) {
    const int64_t states = static_cast<int64_t>(q.images) * kRoutes * q.n * q.d;
    status = launch(chunk_ends<E, kStates, kLanes, kChannels>, blocks, kThreads, shared(false), stream, q);
    if (status == cudaSuccess) status = launch(carry_chunks<8>, divide_up(states, 128), 128, 0, stream, q);
  }
  if (status != cudaSuccess) return status;
  return launch(scan_chunks<E, kStates, kLanes, kChannels>, blocks, kThreads, shared(true), stream, q);
}

template <class E>
cudaError_t launch_scan(const Scan2dPlan& plan, const Scan2dTask& q, cudaStream_t stream) {
  if (plan.states == 16 && plan.lanes == 1) return launch_passes<E, 16, 1, 64>(q, stream);
  if (plan.states == 8 && plan.lanes == 2) return launch_passes<E, 8, 2, 32>(q, stream);
  if (plan.states == 4 && plan.lanes == 4) return launch_passes<E, 4, 4, 32>(q, stream);
  if (plan.states == 16 && plan.lanes == 2) return launch_passes<E, 16, 2, 32>(q, stream);
  if (plan.states == 16 && plan.lanes == 4) return launch_passes<E, 16, 4, 32>(q, stream);
  return launch_passes<E, 16, 16, 8>(q, stream);
}

template <class E>
cudaError_t launch_typed(const Scan2dPlan& plan, Scan2dTask q, int64_t multiprocessors, cudaStream_t stream) {
  const int64_t width = kernels::Channels::of(0, q.n, q.R).width;
  q.b_pack = pack_for<E>(q.p, width, q.n);
  q.dt_pack = pack_for<E>(static_cast<const E*>(q.p) + 2 * kRoutes * q.n, width, q.R);
  const cudaError_t status = launch_scan<E>(plan, q, stream);
  if (status != cudaSuccess) return status;
  constexpr int kWide = kWidest<E>;
  const bool wide = q.d % kWide == 0 && aligned(q.u, 16) && aligned(q.y, 16) && aligned(q.D, 16);
  const int64_t elements = static_cast<int64_t>(q.images) * q.L * q.d;
  const int64_t blocks = std::min(divide_up(elements, 256 * (wide ? kWide : 1)), 64 * multiprocessors);
  return launch(wide ? add_parts<E, kWide> : add_parts<E, 1>, blocks, 256, 0, stream, q);
}

// What the caller says, or else what the current device has.
cudaError_t multiprocessors_of(const Scan2dArguments& a, int* count) {
  *count = a.multiprocessors;
  if (a.multiprocessors != 0) return cudaSuccess;
  int device = 0;
  const cudaError_t status = cudaGetDevice(&device);
  return status != cudaSuccess ? status : cudaDeviceGetAttribute(count, cudaDevAttrMultiProcessorCount, device);
}

}  // namespace

cudaError_t launch_scan2d(const Scan2dArguments& a, cudaStream_t stream) {
  const Scan2dShape shape{a.b, a.H, a.W, a.d, a.n, a.R};
  if (!valid(shape) || a.multiprocessors < 0) return cudaErrorInvalidValue;
  if (a.b == 0 || shape.L() == 0) return cudaSuccess;
  for (const void* pointer : {a.u, a.p, a.dt_weight, static_cast<const void*>(a.A), static_cast<const void*>(a.D),
                              static_cast<const void*>(a.delta_bias), static_cast<const void*>(a.y),
                              static_cast<const void*>(a.workspace)}) {
    if (pointer == nullptr) return cudaErrorInvalidValue;
  }
  if (!aligned(a.workspace, 16)) return cudaErrorInvalidValue;
  int multiprocessors = 0;
  const cudaError_t status = multiprocessors_of(a, &multiprocessors);
  if (status != cudaSuccess) return status;

  const Scan2dPlan plan = plan_scan2d(shape, multiprocessors);
  const Scan2dWorkspace parts = Scan2dWorkspace::of(shape, plan.chunks > 1 ? shape.b * plan.chunks : 0);
  float* workspace = static_cast<float*>(a.workspace);
  Scan2dTask q{};
  q.H = static_cast<int>(a.H), q.W = static_cast<int>(a.W), q.L = static_cast<int>(shape.L());
  q.d = static_cast<int>(a.d), q.n = static_cast<int>(a.n), q.R = static_cast<int>(a.R);
  q.images = static_cast<int>(a.b);
  q.chunk = plan.chunk, q.chunks = plan.chunks, q.blocks = plan.blocks;
  q.u = a.u, q.p = a.p, q.dt_weight = a.dt_weight;
  q.A = a.A, q.D = a.D, q.delta_bias = a.delta_bias;
  q.partial = workspace;
  q.states = plan.chunks > 1 ? workspace + parts.states : nullptr;
  q.sums = workspace + parts.sums;
  q.y = a.y;
  return a.element == Element::kHalf ? launch_typed<__half>(plan, q, multiprocessors, stream)
                                     : launch_typed<float>(plan, q, multiprocessors, stream);
}

}  // namespace cuda
}  // namespace vmkla
