// Launching a kernel and looking at pointers on the host.
#pragma once
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace vmkla {
namespace cuda {

// Enqueues a kernel whose only argument is `argument`. The status is that of this launch, not of what failed before.
template <class Argument>
cudaError_t launch(void (*kernel)(Argument), int64_t blocks, int threads, size_t shared_bytes, cudaStream_t stream,
                   Argument argument) {
  if (blocks <= 0 || blocks > INT32_MAX) return cudaErrorInvalidValue;
  const dim3 grid(static_cast<unsigned>(blocks)), block(static_cast<unsigned>(threads));
#if defined(VMKLA_CUDA_EMULATION)
  return emulation::launch(kernel, grid, block, shared_bytes, stream, argument);
#else
  void* arguments[] = {&argument};
  return cudaLaunchKernel(reinterpret_cast<const void*>(kernel), grid, block, arguments, shared_bytes, stream);
#endif
}

inline bool aligned(const void* pointer, size_t bytes) { return reinterpret_cast<uintptr_t>(pointer) % bytes == 0; }

inline int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }
inline int64_t divide_up(int64_t value, int64_t by) { return (value + by - 1) / by; }

}  // namespace cuda
}  // namespace vmkla
