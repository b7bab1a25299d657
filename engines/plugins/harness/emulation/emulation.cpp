#include "emulation.h"

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <limits>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>

#include "cuda_runtime.h"

namespace emulation {

constexpr size_t kStackBytes = 96 * 1024;
constexpr size_t kMostSharedBytes = 48 * 1024;  // what a kernel gets without asking for more
constexpr unsigned kMostThreads = 1024;
constexpr int kWarp = 32;

enum class State { kReady, kAtBlock, kAtWarp, kDone };

struct Fibre {
  Thread thread;
  State state = State::kReady;
  ucontext_t start;
  jmp_buf resume;
  bool started = false;
  unsigned mask = 0;
  int line = 0;
  float given = 0.0f, received = 0.0f;
  int lane_mask = 0;  // of an exchange; 0 for a barrier of the warp
};

Thread* running = nullptr;

namespace {

Order order = Order::kForward;
std::mt19937 randomness;
int multiprocessor_count = 4;
std::string error;

std::vector<Fibre> fibres;
std::vector<std::vector<char>> stacks;
std::vector<unsigned char> shared;
Fibre* current = nullptr;
jmp_buf scheduler;
std::string failure;  // of the running launch
const std::function<void()>* body = nullptr;

void fail(const std::string& what) {
  if (failure.empty()) failure = what;
}

std::vector<size_t> permutation(size_t count) {
  std::vector<size_t> numbers(count);
  std::iota(numbers.begin(), numbers.end(), size_t{0});
  if (order == Order::kReverse) std::reverse(numbers.begin(), numbers.end());
  if (order == Order::kShuffled) std::shuffle(numbers.begin(), numbers.end(), randomness);
  return numbers;
}

// Hands the CPU back to the scheduler until the fibre is made ready again.
void wait(State state) {
  current->state = state;
  if (_setjmp(current->resume) == 0) _longjmp(scheduler, 1);
}

void enter() {
  (*body)();
  current->state = State::kDone;
  _longjmp(scheduler, 1);
}

void resume(Fibre& fibre) {
  current = &fibre;
  running = &fibre.thread;
  if (_setjmp(scheduler) != 0) return;
  if (fibre.started) _longjmp(fibre.resume, 1);
  fibre.started = true;
  setcontext(&fibre.start);
}

std::string place(const Fibre& fibre) {
  return "thread " + std::to_string(fibre.thread.index.x) + " of block " + std::to_string(fibre.thread.block.x);
}

// Lets the warp that begins at `first` go on if all of it has arrived; says whether it did.
bool release_warp(size_t first) {
  const size_t end = std::min(first + kWarp, fibres.size());
  for (size_t i = first; i < end; ++i) {
    const Fibre& fibre = fibres[i];
    if (fibre.state != State::kAtWarp) return false;
    if (fibre.mask != 0xffffffffu || end - first != kWarp) fail("a mask that is not the whole warp at " + place(fibre));
    if (fibre.line != fibres[first].line || fibre.lane_mask != fibres[first].lane_mask) {
      fail("a warp meets at lines " + std::to_string(fibres[first].line) + " and " + std::to_string(fibre.line));
    }
  }
  for (size_t i = first; i < end; ++i) {
    const size_t partner = first + ((i - first) ^ static_cast<size_t>(fibres[i].lane_mask));
    if (partner < end) fibres[i].received = fibres[partner].given;
  }
  for (size_t i = first; i < end; ++i) fibres[i].state = State::kReady;
  return true;
}

bool release_block() {
  for (const Fibre& fibre : fibres) {
    if (fibre.state != State::kAtBlock) return false;
  }
  for (Fibre& fibre : fibres) {
    if (fibre.line != fibres[0].line) {
      fail("a block meets at lines " + std::to_string(fibres[0].line) + " and " + std::to_string(fibre.line));
    }
    fibre.state = State::kReady;
  }
  return true;
}

// One block to its end, or to its first failure.
void run_block(dim3 grid, dim3 block, unsigned number, size_t shared_bytes) {
  // Poison: what is read before it is written is NaN, whether it is read as a float or as a number of a pixel.
  shared.assign(shared_bytes + 16, 0xff);
  for (unsigned i = 0; i < block.x; ++i) {
    Fibre& fibre = fibres[i];
    fibre.thread = Thread{dim3(i, 0, 0), dim3(number, 0, 0), block, grid};
    fibre.state = State::kReady;
    fibre.started = false;
    getcontext(&fibre.start);
    fibre.start.uc_stack.ss_sp = stacks[i].data();
    fibre.start.uc_stack.ss_size = kStackBytes;
    fibre.start.uc_link = nullptr;
    makecontext(&fibre.start, enter, 0);
  }
  for (;;) {
    bool ran = false;
    for (const size_t i : permutation(fibres.size())) {
      if (fibres[i].state != State::kReady) continue;
      resume(fibres[i]);
      ran = true;
      if (!failure.empty()) return;
    }
    bool released = false;
    for (size_t first = 0; first < fibres.size(); first += kWarp) released = release_warp(first) || released;
    released = release_block() || released;
    if (!failure.empty()) return;
    if (ran || released) continue;
    for (const Fibre& fibre : fibres) {
      if (fibre.state == State::kDone) continue;
      fail(place(fibre) + " waits at line " + std::to_string(fibre.line) + " for threads that do not come");
      return;
    }
    return;  // all done
  }
}

}  // namespace

void set_order(Order value, unsigned seed) {
  order = value;
  randomness.seed(seed);
}
void set_multiprocessors(int count) { multiprocessor_count = count; }
int multiprocessors() { return multiprocessor_count; }
const char* last_error() { return error.c_str(); }

unsigned char* shared_memory() {
  return shared.data() + (16 - reinterpret_cast<uintptr_t>(shared.data()) % 16) % 16;
}

void check_aligned(const void* pointer, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(pointer) % bytes == 0) return;
  fail(place(*current) + " moves " + std::to_string(bytes) + " bytes that are not aligned");
  wait(State::kAtBlock);  // the launch ends here
}

void synchronize_block(int line) {
  current->line = line;
  wait(State::kAtBlock);
}

void synchronize_warp(unsigned mask, int line) { exchange(mask, 0.0f, 0, line); }

float exchange(unsigned mask, float value, int lane_mask, int line) {
  current->mask = mask;
  current->line = line;
  current->given = value;
  current->lane_mask = lane_mask;
  wait(State::kAtWarp);
  return current->received;
}

float exp2_approximate(float x) {
  const float exact = std::exp2(x);
  if (std::fpclassify(exact) == FP_SUBNORMAL) return 0.0f;
  if (x == 0.0f) return 1.0f;
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  bits = (bits ^ (bits >> 15)) * 0x9e3779b1u;
  const float error_of_x = (static_cast<float>(bits >> 8) / 8388608.0f - 1.0f) * 0x1p-22f;  // in +-2^-22
  return exact + exact * error_of_x;
}

cudaError_t run(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& kernel) {
  failure.clear();
  if (block.x == 0 || block.x > kMostThreads || block.y * block.z * grid.y * grid.z != 1 ||
      shared_bytes > kMostSharedBytes) {
    error = "a launch of " + std::to_string(block.x) + " threads and " + std::to_string(shared_bytes) + " bytes";
    return cudaErrorInvalidValue;
  }
  body = &kernel;
  fibres.resize(block.x);
  while (stacks.size() < block.x) stacks.emplace_back(kStackBytes);
  for (const size_t number : permutation(grid.x)) {
    run_block(grid, block, static_cast<unsigned>(number), shared_bytes);
    if (failure.empty()) continue;
    error = failure;
    std::fprintf(stderr, "emulation: %s\n", error.c_str());
    return cudaErrorLaunchFailure;
  }
  return cudaSuccess;
}

}  // namespace emulation
