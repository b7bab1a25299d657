// vmkla_harness: checks the CUDA kernels against float64 on the host and times them, without TensorRT.
//
//     vmkla_harness [--no-checks] [--no-times] [--once] [--quick] [--size PIXELS] [--rounds N]
//
// --once launches each kernel of the first stage of `small` and nothing else, for a profiler.
// Writes JSON lines to stdout. Exit status: 0 all right; 1 a CUDA call failed; 2 wrong usage; 4 no GPU; 5 a result is
// wrong (the times are then left out).
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>

#include "checks.h"
#include "device_memory.h"
#include "timing.h"

namespace {

struct Options {
  bool checks = true, times = true, thorough = true, once = false;
  int64_t size = 256;
  int rounds = 50;
};

// False where an argument is not understood.
bool parse(int count, char** arguments, Options* options) {
  for (int i = 1; i < count; ++i) {
    const bool has_value = i + 1 < count;
    if (std::strcmp(arguments[i], "--no-times") == 0) {
      options->times = false;
    } else if (std::strcmp(arguments[i], "--no-checks") == 0) {
      options->checks = false;
    } else if (std::strcmp(arguments[i], "--once") == 0) {
      options->once = true;
    } else if (std::strcmp(arguments[i], "--quick") == 0) {
      options->thorough = false;
    } else if (std::strcmp(arguments[i], "--size") == 0 && has_value) {
      options->size = std::atoll(arguments[++i]);
    } else if (std::strcmp(arguments[i], "--rounds") == 0 && has_value) {
      options->rounds = std::atoi(arguments[++i]);
    } else {
      return false;
    }
  }
  return options->size >= 4 && options->rounds >= 1;
}

void describe_gpu() {
  cudaDeviceProp properties;
  int driver = 0, runtime = 0;
  vmkla::harness::check(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  vmkla::harness::check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  vmkla::harness::check(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
  std::printf("{\"gpu\": \"%s\", \"compute_capability\": \"%d.%d\", \"multiprocessors\": %d, \"driver\": %d, "
              "\"runtime\": %d}\n",
              properties.name, properties.major, properties.minor, properties.multiProcessorCount, driver, runtime);
}

}  // namespace

int main(int count, char** arguments) {
  Options options;
  if (!parse(count, arguments, &options)) {
    std::fprintf(stderr, "usage: %s [--no-checks] [--no-times] [--once] [--quick] [--size PIXELS] [--rounds N]\n", arguments[0]);
    return 2;
  }
  int devices = 0;
  const cudaError_t status = cudaGetDeviceCount(&devices);
  if (status != cudaSuccess || devices == 0) {
    std::fprintf(stderr, "no GPU: %s. The harness needs an NVIDIA GPU and its driver.\n", cudaGetErrorString(status));
    return 4;
  }
  try {
    describe_gpu();
    if (options.once) {
      vmkla::harness::launch_once(options.size);
      return 0;
    }
    const int failed = options.checks ? vmkla::harness::check_kernels(options.thorough) : 0;
    if (failed > 0) {
      std::fprintf(stderr, "%d checks failed\n", failed);
      return 5;
    }
    if (options.times) vmkla::harness::time_kernels(options.size, options.rounds);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
