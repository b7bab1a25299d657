// How long the kernels take beside what they cannot do without.
#pragma once
#include <cstdint>

namespace vmkla {
namespace harness {

// Prints a JSON line per network, stage, batch and type for the scan, and one per network and type for the bases.
// `size`: side of the network's input; `rounds`: timings that each median is taken of.
void time_kernels(int64_t size, int rounds);

}  // namespace harness
}  // namespace vmkla
