// How the library is found: loadLibrary, merely opening it, and TensorRTs that it was not compiled for.
#include "check.h"
#include "library.h"

namespace host {
namespace {

constexpr const char* kScan = "vmkla::SelectiveScan2d 1";
constexpr const char* kSpline = "vmkla::BSplineBasis 1";

void expect_both_registered() {
  EXPECT_EQUAL(registry().creators.size(), 2u);
  EXPECT_EQUAL(registry().creators.count(kScan), 1u);
  EXPECT_EQUAL(registry().creators.count(kSpline), 1u);
}

}  // namespace

CASE(entry_points) {
  Library library;
  int32_t count = -1;
  nv::IPluginCreatorInterface* const* list = library.get_creators(count);
  EXPECT_EQUAL(count, 2);
  EXPECT_EQUAL(library.version(), kHeaders);
  const char* const names[] = {"SelectiveScan2d", "BSplineBasis"};
  for (int32_t i = 0; i < count; ++i) {
    EXPECT_EQUAL(std::string(list[i]->getInterfaceInfo().kind), "PLUGIN CREATOR_V3ONE");
    auto* one = static_cast<nv::IPluginCreatorV3One*>(list[i]);
    EXPECT_EQUAL(std::string(one->getPluginName()), names[i]);
    EXPECT_EQUAL(std::string(one->getPluginVersion()), "1");
    EXPECT_EQUAL(std::string(one->getPluginNamespace()), "vmkla");
  }
}

CASE(opened_registers_itself) {
  Library library;
  expect_both_registered();
  int32_t count = 0;
  EXPECT(registry().getCreator("SelectiveScan2d", "1", "vmkla") == library.get_creators(count)[0]);
}

CASE(load_library_after_opening) {
  Library library;
  expect_both_registered();
  EXPECT(registry().loadLibrary(library_path().c_str()) != nullptr);
  expect_both_registered();
  // Twice is the caller's mistake, and it is the registry that says so.
  EXPECT(registry().loadLibrary(library_path().c_str()) == nullptr);
  expect_both_registered();
}

CASE(loaded_into_another_registry_after_opening) {
  // A builder has a registry of its own; the library then leaves the one that it had joined, and says so.
  Library library;
  expect_both_registered();
  Logger logger;
  LoggerFinder finder(&logger);
  library.set_logger_finder(&finder);
  Registry of_a_builder;
  EXPECT(of_a_builder.loadLibrary(library_path().c_str()) != nullptr);
  EXPECT_EQUAL(of_a_builder.creators.size(), 2u);
  EXPECT(registry().creators.empty());
  EXPECT_EQUAL(logger.lines.size(), 1u);
  EXPECT(logger.lines.at(0).first == nv::ILogger::Severity::kINFO);
  EXPECT(logger.lines.at(0).second.find("the library left TensorRT's global registry") != std::string::npos);
  // Once: there is nothing more to take back.
  EXPECT(registry().loadLibrary(library_path().c_str()) != nullptr);
  expect_both_registered();
  EXPECT_EQUAL(logger.lines.size(), 1u);
}

CASE(load_library_alone) {
  EXPECT(registry().loadLibrary(library_path().c_str()) != nullptr);
  expect_both_registered();
}

CASE(other_major_version_is_left_alone) {
  // Registry and logger have other tables there: neither may be called.
  host_version = kHeaders + 10000;
  Session session;
  EXPECT(registry().creators.empty());
  Fields none;
  EXPECT(session.create("BSplineBasis", none) == nullptr);
  EXPECT_EQUAL(session.finder.calls, 0);
  EXPECT(session.logger.lines.empty());
}

CASE(other_minor_version_is_served) {
  host_version = kHeaders + 100;
  Session session;
  Fields none;
  EXPECT(session.create("BSplineBasis", none) == nullptr);
  EXPECT_EQUAL(session.finder.calls, 1);
}

CASE(logger) {
  Session session;
  Fields none;
  EXPECT(session.create("BSplineBasis", none) == nullptr);
  EXPECT_EQUAL(session.logger.lines.size(), 1u);
  EXPECT(session.logger.lines.at(0).first == nv::ILogger::Severity::kERROR);
  EXPECT_EQUAL(session.logger.take().find("vmkla BSplineBasis: field order is missing"), 0u);
  // What the finder throws, or a null logger, may not come out of the library.
  session.finder.throws = true;
  EXPECT(session.create("BSplineBasis", none) == nullptr);
  session.library.set_logger_finder(nullptr);
  EXPECT(session.create("BSplineBasis", none) == nullptr);
  LoggerFinder without(nullptr);
  session.library.set_logger_finder(&without);
  EXPECT(session.create("BSplineBasis", none) == nullptr);
  EXPECT_EQUAL(without.calls, 1);
  EXPECT(session.logger.lines.empty());
}

}  // namespace host
