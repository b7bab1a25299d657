// Both kernels against the host's float64, over many shapes.
#pragma once

namespace vmkla {
namespace harness {

// Prints a JSON line per shape, type and way of cutting the work. Every kernel that any GPU would choose is run.
// `thorough` adds the first stage of the network `small`, which the host takes some seconds for, and every shape in all
// the ways that GPUs of several sizes would cut it. Returns how many checks failed.
int check_kernels(bool thorough);

}  // namespace harness
}  // namespace vmkla
