// All kernels for one instruction set. CMake compiles this file once per set, with VMKLA_KERNELS_NAMESPACE naming it.
// Nothing here may be an inline function or template of the standard library: the linker keeps one copy of those,
// and it could be this one.
#include "bspline.h"
#include "isa.h"
#include "scan2d_backward.h"
#include "scan2d_forward.h"

#define VMKLA_TEXT_OF(x) #x
#define VMKLA_TEXT(x) VMKLA_TEXT_OF(x)

namespace vmkla {
namespace VMKLA_KERNELS_NAMESPACE {

static float exp2_loop(const float* x, int64_t count, int64_t repeats) {
  constexpr int kStreams = 4;  // independent sums, so that only the exponentials count
  Lanes::V sum[kStreams] = {};
  for (int64_t repeat = 0; repeat < repeats; ++repeat) {
    for (int64_t i = 0; i + kStreams * kLanes <= count; i += kStreams * kLanes) {
      for (int s = 0; s < kStreams; ++s) sum[s] += exp2_in_range<Lanes>(Lanes::load(x + i + s * kLanes));
    }
  }
  return Lanes::sum(sum[0] + sum[1] + sum[2] + sum[3]);
}

// What a scan must compute and nothing else: decay, state and output, all in registers.
static float recurrence_loop(const float* x, int64_t count, int64_t repeats) {
  constexpr int kStreams = 4;  // independent states
  const Lanes::V B = Lanes::set(x[0]), C = Lanes::set(x[1]);
  Lanes::V A[kStreams], h[kStreams] = {}, sum[kStreams] = {};
  for (int s = 0; s < kStreams; ++s) A[s] = Lanes::set(1.0f / float(1 + s));
  for (int64_t repeat = 0; repeat < repeats; ++repeat) {
    for (int64_t i = 0; i + kStreams * kLanes <= count; i += kStreams * kLanes) {
      for (int s = 0; s < kStreams; ++s) {
        const Lanes::V delta = Lanes::load(x + i + s * kLanes);
        h[s] = next_state<Lanes, true>(h[s], delta, A[s], delta, B);
        sum[s] = Lanes::fma(h[s], C, sum[s]);
      }
    }
  }
  return Lanes::sum(sum[0] + sum[1] + sum[2] + sum[3]);
}

static const IsaKernels kKernels = {
    VMKLA_TEXT(VMKLA_ISA_NAME), scan_forward_tasks, scan_forward, scan_backward,
    bspline_forward,            bspline_backward,   exp2_loop,     recurrence_loop,
};

}  // namespace VMKLA_KERNELS_NAMESPACE

extern const IsaKernels* const VMKLA_ISA_TABLE;
const IsaKernels* const VMKLA_ISA_TABLE = &VMKLA_KERNELS_NAMESPACE::kKernels;

}  // namespace vmkla
