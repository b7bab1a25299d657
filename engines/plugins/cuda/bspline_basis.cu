// bspline_basis on a GPU. Definition: vmkla/ops/bspline.py; de Boor, A Practical Guide to Splines, ch. IX.
//
// Two kernels. Uniform cubic knots have a formula for each basis alone: a thread computes those that one 16-byte store
// takes (or one, where their number does not divide), so a warp writes one run of memory. Any other knots: a thread
// runs the recursion for one value, the knots in shared memory. x is read as float and clamped to the support before
// anything is multiplied, whatever its type. What bounds the time from below is bytes: count (1 + bases) elements.
#include <algorithm>

#include "../kernels/bspline_basis.h"
#include "device.h"
#include "kernel_launch.h"
#include "launch.h"

namespace vmkla {
namespace cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostBlocks = 1 << 16;

struct BasisTask {
  int64_t count;
  int knots, order, bases;
  float grid_min, grid_step;
  const void* x;
  const float* grid;
  void* out;
};

// Position of x in steps from the first knot, clamped to the support; a NaN stays one.
__device__ __forceinline__ float position(const BasisTask& q, float x) {
  const float s = (x - q.grid_min) / q.grid_step;
  const float last = static_cast<float>(q.knots - 1);
  return s < 0.0f ? 0.0f : (s > last ? last : s);
}

// kCount divides the number of bases.
template <class E, int kCount>
__global__ void __launch_bounds__(kThreads) uniform_cubic(const BasisTask q) {
  const E* x = static_cast<const E*>(q.x);
  E* out = static_cast<E*>(q.out);
  const int packs = q.bases / kCount;  // of one value
  // A block takes kThreads values, whose packs are numbered from 0: small numbers, so the division is cheap.
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * kThreads; first < q.count;
       first += static_cast<int64_t>(gridDim.x) * kThreads) {
    const int values = static_cast<int>(q.count - first < kThreads ? q.count - first : kThreads);
    for (int i = threadIdx.x; i < values * packs; i += kThreads) {
      const int value = i / packs;
      const int basis = (i - value * packs) * kCount;
      const float s = position(q, to_float(x[first + value]));
      Pack<E, kCount> pack;
      VMKLA_UNROLL for (int j = 0; j < kCount; ++j) {
        pack.v[j] = from_float<E>(kernels::cubic_basis<DeviceLane>(s, static_cast<float>(basis + j)));
      }
      store_pack(out + (first + value) * q.bases + basis, pack);
    }
  }
}

template <class E>
__global__ void __launch_bounds__(kThreads) any_knots(const BasisTask q) {
  __shared__ float knots[kMaxKnots];
  const E* x = static_cast<const E*>(q.x);
  E* out = static_cast<E*>(q.out);
  for (int i = threadIdx.x; i < q.knots; i += kThreads) knots[i] = q.grid[i];
  __syncthreads();
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < q.count;
       i += static_cast<int64_t>(gridDim.x) * kThreads) {
    float bases[kMaxKnots];
    kernels::cox_de_boor(to_float(x[i]), knots, q.knots, q.order, bases, nullptr);
    for (int j = 0; j < q.bases; ++j) out[i * q.bases + j] = from_float<E>(bases[j]);
  }
}

template <class E>
cudaError_t launch_typed(const BasisTask& q, bool uniform, cudaStream_t stream) {
  const int64_t blocks = std::min(divide_up(q.count, kThreads), kMostBlocks);
  if (!uniform) return launch(any_knots<E>, blocks, kThreads, 0, stream, q);
  const bool wide = q.bases % kWidest<E> == 0 && aligned(q.out, 16);
  return launch(wide ? uniform_cubic<E, kWidest<E>> : uniform_cubic<E, 1>, blocks, kThreads, 0, stream, q);
}

}  // namespace

cudaError_t launch_bspline(const BsplineArguments& a, cudaStream_t stream) {
  if (a.count < 0 || a.order < 1 || a.order > kMaxOrder || a.knots < a.order + 2 || a.knots > kMaxKnots) {
    return cudaErrorInvalidValue;
  }
  if (a.uniform && (a.order != 3 || !(a.grid_step > 0.0f))) return cudaErrorInvalidValue;
  if (a.count == 0) return cudaSuccess;
  if (a.x == nullptr || a.bases == nullptr || (!a.uniform && a.grid == nullptr)) return cudaErrorInvalidValue;
  const int bases = static_cast<int>(a.knots - a.order - 1);
  const BasisTask q{a.count, static_cast<int>(a.knots), static_cast<int>(a.order), bases, a.grid_min, a.grid_step,
                    a.x,     a.grid,                    a.bases};
  return a.element == Element::kHalf ? launch_typed<__half>(q, a.uniform, stream)
                                     : launch_typed<float>(q, a.uniform, stream);
}

}  // namespace cuda
}  // namespace vmkla
