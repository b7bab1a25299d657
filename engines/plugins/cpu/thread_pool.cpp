#include "thread_pool.h"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

namespace vmkla {
namespace {

class ThreadPool {
 public:
  // Never destroyed: at exit the workers may still wait, and a fork has none of them (see `get`).
  static ThreadPool& get() {
    static std::mutex guard;
    static ThreadPool* pool = nullptr;
    static pid_t owner = 0;
    const std::lock_guard<std::mutex> lock(guard);
    if (pool == nullptr || owner != getpid()) {
      pool = new ThreadPool;
      owner = getpid();
    }
    return *pool;
  }

  void run(int threads, size_t count, TaskFn task, void* context) {
    if (threads <= 1 || count <= 1 || !start(static_cast<size_t>(threads - 1), count, task, context)) {
      for (size_t i = 0; i < count; ++i) task(context, i);
      return;
    }
    drain();
    const std::lock_guard<std::mutex> lock(mutex_);
    wait(done_, [this] { return running_ == 0; });
    busy_ = false;
  }

 private:
  // Give the workers their tasks; false while those of another caller run.
  bool start(size_t helpers, size_t count, TaskFn task, void* context) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (busy_) return false;
    helpers = std::min(helpers, count - 1);
    try {
      for (; workers_ < helpers; ++workers_) std::thread(&ThreadPool::work, this, workers_).detach();
    } catch (const std::system_error&) {
      helpers = workers_;  // the system gives no more threads: fewer of them do the same work
    }
    busy_ = true;
    task_ = task;
    context_ = context;
    count_ = count;
    next_.store(0);
    called_ = running_ = helpers;
    ++round_;
    start_.notify_all();
    return true;
  }

  // Wait with mutex_ held. GCC 12's std::condition_variable::wait is missing in older C++ runtimes.
  template <class Ready>
  void wait(std::condition_variable& signal, const Ready& ready) {
    while (!ready()) pthread_cond_wait(signal.native_handle(), mutex_.native_handle());
  }

  void drain() {
    for (size_t i; (i = next_.fetch_add(1)) < count_;) task_(context_, i);
  }

  void work(size_t number) {
    size_t seen = 0;
    for (;;) {
      {
        const std::lock_guard<std::mutex> lock(mutex_);
        wait(start_, [&] { return round_ != seen && number < called_; });
        seen = round_;
      }
      drain();
      const std::lock_guard<std::mutex> lock(mutex_);
      if (--running_ == 0) done_.notify_one();
    }
  }

  std::mutex mutex_;  // guards what follows
  bool busy_ = false;  // tasks of one caller are running
  std::condition_variable start_, done_;
  size_t workers_ = 0, called_ = 0, running_ = 0, round_ = 0, count_ = 0;
  std::atomic<size_t> next_{0};
  TaskFn task_ = nullptr;
  void* context_ = nullptr;
};

}  // namespace

Executor pool_executor(const int& threads) {
  return Executor{const_cast<int*>(&threads), [](void* host, size_t count, TaskFn task, void* context) {
                    ThreadPool::get().run(*static_cast<int*>(host), count, task, context);
                  }};
}

}  // namespace vmkla
