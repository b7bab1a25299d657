// Compares, prints a line for every check and counts those that do not hold.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "torch_api.h"

namespace self_test {

class Report {
 public:
  explicit Report(std::string spoilt) : spoilt_(std::move(spoilt)) {}

  void that(const std::string& check, bool holds, const std::string& what) {
    if (check == spoilt_) holds = !holds;
    line(check, holds, what);
  }

  // Every element within `limit` of what is expected, as a part of the largest expected one.
  template <class T>
  void near(const std::string& check, const std::string& what, const std::vector<T>& found,
            std::vector<double> expected, double limit) {
    double scale = 0.0, error = 0.0;
    for (const double value : expected) {
      if (std::isfinite(value)) scale = std::max(scale, std::fabs(value));
    }
    if (scale == 0.0) scale = 1.0;
    if (check == spoilt_ && !expected.empty()) {
      double& value = expected[expected.size() / 2];
      value = std::isfinite(value) ? value + 3.0 * std::max(limit, 1e-7) * scale : 0.0;
    }
    bool same_kind = found.size() == expected.size();
    for (size_t i = 0; same_kind && i < expected.size(); ++i) {
      const double value = static_cast<double>(found[i]);
      if (std::isfinite(expected[i]) && std::isfinite(value)) {
        error = std::max(error, std::fabs(value - expected[i]) / scale);
      } else {
        same_kind = std::isnan(expected[i]) ? std::isnan(value) : value == expected[i];
      }
    }
    char text[160];
    std::snprintf(text, sizeof text, "%s: error %.1e of %.1e%s", what.c_str(), error, limit,
                  same_kind ? "" : ", and a number that is not finite in the wrong place");
    line(check, same_kind && error <= limit, text);
  }

  int failures() const { return failures_; }

 private:
  void line(const std::string& check, bool holds, const std::string& what) {
    std::printf("%s %s %s: %s\n", holds ? "ok    " : "FAILED", vmkla_cpu_instruction_set(), check.c_str(), what.c_str());
    failures_ += holds ? 0 : 1;
  }

  std::string spoilt_;
  int failures_ = 0;
};

}  // namespace self_test
