// Both kernels against the host's float64, over many shapes.
#pragma once

namespace vmkla {
namespace harness {

// Prints a JSON line per shape and type. `thorough` adds the first stage of the network `small`, which the host takes
// some seconds for. Returns how many checks failed.
int check_kernels(bool thorough);

}  // namespace harness
}  // namespace vmkla
