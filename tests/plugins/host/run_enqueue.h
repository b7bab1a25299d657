// Running a plugin on files: what a test in another language compares with its own reference.
#pragma once
#include <string>
#include <vector>

namespace host {

// scan FOLDER float|half b H W d n R MAX_BATCH, or spline FOLDER float|half order uniform grid_min grid_step knots
// EXTENT_OF_X...: reads FOLDER/0.bin and so on, one file an input; writes direct.bin, what enqueue gave, and graph.bin,
// what it gave when it was captured into a CUDA graph and replayed on other memory content.
void run_enqueue(const std::vector<std::string>& arguments);

}  // namespace host
