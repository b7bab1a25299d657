// C entry points to the launchers, for tests that load the emulation as a shared library.
#include "../../cuda/scan2d_plan.h"

extern "C" {

size_t emulated_workspace_bytes(const int64_t* shape) {
  return vmkla::cuda::scan2d_workspace_bytes(shape[0], shape[1], shape[2], shape[3], shape[4], shape[5]);
}

// States of a thread, lanes of a channel and chunks of a route.
void emulated_plan(const int64_t* shape, int multiprocessors, int64_t* states_lanes_chunks) {
  const vmkla::cuda::Scan2dShape s{shape[0], shape[1], shape[2], shape[3], shape[4], shape[5]};
  const vmkla::cuda::Scan2dPlan plan = vmkla::cuda::plan_scan2d(s, multiprocessors);
  states_lanes_chunks[0] = plan.states, states_lanes_chunks[1] = plan.lanes, states_lanes_chunks[2] = plan.chunks;
}

int emulated_scan2d(int half, const int64_t* shape, const void* const* inputs, void* y, void* workspace,
                    int multiprocessors) {
  vmkla::cuda::Scan2dArguments a{};
  a.element = half ? vmkla::cuda::Element::kHalf : vmkla::cuda::Element::kFloat;
  a.b = shape[0], a.H = shape[1], a.W = shape[2], a.d = shape[3], a.n = shape[4], a.R = shape[5];
  a.u = inputs[0], a.p = inputs[1], a.dt_weight = inputs[2];
  a.A = static_cast<const float*>(inputs[3]);
  a.D = static_cast<const float*>(inputs[4]);
  a.delta_bias = static_cast<const float*>(inputs[5]);
  a.y = y, a.workspace = workspace, a.multiprocessors = multiprocessors;
  return vmkla::cuda::launch_scan2d(a, nullptr);
}

int emulated_bspline(int half, int64_t count, int64_t knots, int64_t order, int uniform, float grid_min,
                     float grid_step, const void* x, const float* grid, void* bases) {
  vmkla::cuda::BsplineArguments a{};
  a.element = half ? vmkla::cuda::Element::kHalf : vmkla::cuda::Element::kFloat;
  a.count = count, a.knots = knots, a.order = order, a.uniform = uniform != 0;
  a.grid_min = grid_min, a.grid_step = grid_step;
  a.x = x, a.grid = grid, a.bases = bases;
  return vmkla::cuda::launch_bspline(a, nullptr);
}

void emulated_settings(int multiprocessors, int order, unsigned seed) {
  emulation::set_multiprocessors(multiprocessors);
  emulation::set_order(static_cast<emulation::Order>(order), seed);
}

const char* emulated_error() { return emulation::last_error(); }

}  // extern "C"
