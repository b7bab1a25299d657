// How long the kernels take beside what they cannot do without.
#pragma once
#include <cstdint>

namespace vmkla {
namespace harness {

// Prints a JSON line per network, stage, batch and type for the scan, and one per network and type for the bases.
// `size`: side of the network's input; `rounds`: timings that each median is taken of.
void time_kernels(int64_t size, int rounds);

// Launches each op once for the first stage of `small`, batch 1 and 8, both types: for a profiler that reads counters.
void launch_once(int64_t size);

}  // namespace harness
}  // namespace vmkla
