// The CUDA programming model on a CPU, as far as this project's kernels use it: the same kernel source, compiled by
// g++, is run block by block, each thread of a block as a fibre. Stands in for the CUDA headers in tests on machines
// without a GPU; it is slow and proves nothing about speed.
//
// What it looks for beside the results:
//   - barriers and shuffles that some threads of a block (warp) do not reach, or reach at different source lines;
//   - races and missing barriers: threads and blocks run in an order that the caller picks (set_order), and the result
//     must not depend on it; shared memory is NaN when a block begins, so nothing is read before it is written;
//   - accesses of several elements that are not aligned (check_aligned in the kernels).
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

#define __host__
#define __device__
#define __global__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
// One block runs at a time, so a block's shared variables may be the program's. See shared_memory for the poison.
#define __shared__ static

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorNoDevice = 100,
  cudaErrorLaunchFailure = 719,
};

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

struct float2 {
  float x, y;
};
inline float2 make_float2(float x, float y) { return float2{x, y}; }

namespace emulation {

struct Fibre;

// What the running thread sees.
struct Thread {
  dim3 index, block, block_size, grid_size;
};
extern Thread* running;

enum class Order { kForward, kReverse, kShuffled };
// In which order threads and blocks run from now on.
void set_order(Order order, unsigned seed);
// What cudaDeviceGetAttribute says.
void set_multiprocessors(int count);
int multiprocessors();
// What the last failed launch did wrong; empty if none failed.
const char* last_error();
// Wider accesses than an address allows end the launch.
void check_aligned(const void* pointer, size_t bytes);

unsigned char* shared_memory();
void synchronize_block(int line);
void synchronize_warp(unsigned mask, int line);
float exchange(unsigned mask, float value, int lane_mask, int line);

// ex2.approx.ftz.f32: off by up to 2^-22, in a way that looks random but is always the same for the same x.
float exp2_approximate(float x);

// Runs one kernel now.
cudaError_t run(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& body);
// Runs it now, or notes it where the stream is being captured.
cudaError_t submit(dim3 grid, dim3 block, size_t shared_bytes, void* stream, std::function<void()> body);

template <class Argument>
cudaError_t launch(void (*kernel)(Argument), dim3 grid, dim3 block, size_t shared_bytes, void* stream,
                   Argument argument) {
  return submit(grid, block, shared_bytes, stream, [kernel, argument] { kernel(argument); });
}

}  // namespace emulation

#define threadIdx (::emulation::running->index)
#define blockIdx (::emulation::running->block)
#define blockDim (::emulation::running->block_size)
#define gridDim (::emulation::running->grid_size)

inline void __syncthreads(int line = __builtin_LINE()) { emulation::synchronize_block(line); }
inline void __syncwarp(unsigned mask = 0xffffffffu, int line = __builtin_LINE()) {
  emulation::synchronize_warp(mask, line);
}
inline float __shfl_xor_sync(unsigned mask, float value, int lane_mask, int line = __builtin_LINE()) {
  return emulation::exchange(mask, value, lane_mask, line);
}
