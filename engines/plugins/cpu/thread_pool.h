// A small pool for the torch ops. ONNX Runtime brings its own pool and never sees this one.
#pragma once
#include "kernels.h"

namespace vmkla {
// An executor that runs tasks on `threads` threads, the caller's among them. One call at a time uses the pool;
// a second, concurrent caller runs its tasks itself.
Executor pool_executor(const int& threads);
}  // namespace vmkla
