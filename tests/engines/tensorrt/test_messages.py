"""The logger and the error recorder of a library and process, and where messages arrive."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from tests.engines.tensorrt import stand_in_tensorrt
from vmkla.engines.tensorrt import messages as messages_module
from vmkla.engines.tensorrt.api import TensorRTApi, load_api
from vmkla.engines.tensorrt.messages import KEPT_ERRORS, LibraryLog, Messages, library_log, take_errors

DAMAGED = b"no engine" * 20


@pytest.fixture(scope="module")
def rtx() -> TensorRTApi:
    return load_api("tensorrt-rtx")


def in_process(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, which a segmentation fault or a wait for ever ends."""
    command = [sys.executable, "-I", "-X", "faulthandler", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def in_thread(work: Callable[[], None]) -> None:
    """Run ``work`` in a thread and wait for it."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


# The life of the logger.

LIFE = """
import gc
from pathlib import Path
from vmkla.engines.tensorrt.api import load_api
from vmkla.engines.tensorrt.messages import Messages
from vmkla.engines.tensorrt.build.network import parse_network
from vmkla.engines.tensorrt.plugins import missing_creators
from vmkla.errors import ArtefactMismatchError

api = load_api("tensorrt-rtx")
a, b = api.make_runtime(), api.make_runtime()
assert missing_creators(api)
del a
gc.collect()
assert missing_creators(api)
messages = Messages()
with api.collecting(messages):
    builder = api.make_builder()
    try:
        parse_network(api, builder, b"not a model", Path("model.onnx"))
    except ArtefactMismatchError:
        print("refused")
    del builder
c = api.make_runtime()
with api.collecting(messages):
    assert c.deserialize_cuda_engine(b"no engine" * 20) is None
assert missing_creators(api)
del b, c
gc.collect()
print(sum("magicTag" in text for text in messages.errors))
"""


def test_the_logger_outlives_each_load_and_build() -> None:
    """Open A and B, close A, build, open C: the registry logs through the logger that came first."""
    done = in_process(LIFE)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "refused\n1\n"


RELOADED = """
import gc
from vmkla.engines.tensorrt import messages
from vmkla.engines.tensorrt.api import load_api
from vmkla.engines.tensorrt.plugins import missing_creators

api = load_api("tensorrt-rtx")
a = api.make_runtime()
first = id(api.logger)
messages._logs.clear()
b = api.make_runtime()
assert id(api.logger) != first
del a
gc.collect()
assert missing_creators(api)
print("alive")
"""


def test_the_logger_is_never_freed() -> None:
    """Not even by what clears or reloads the module that made it."""
    done = in_process(RELOADED)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


ALLOCATING = """
import gc
from vmkla.engines.tensorrt.api import load_api
from vmkla.engines.tensorrt.messages import Messages
class Allocating(Messages):
    def add(self, level, text):
        kept.extend([] for _ in range(60_000))
        heard.append(text)
kept, heard = [], []
api = load_api("tensorrt-rtx")
class Foreign(api.module.ILogger):
    def __init__(self):
        super().__init__()
    def log(self, severity, msg):
        pass
foreign = Foreign()
another_programs = api.module.Runtime(foreign)  # so the library reports that its logger differs from vmkla's
gc.set_threshold(50_000)  # so the collection comes in the logger and nowhere else
for make in (api.make_builder, api.make_runtime, api.make_builder):
    with api.collecting(Allocating()):
        cycle = [make()]
    cycle.append(cycle)
    del cycle
print(len(heard))
"""


def test_a_collection_while_a_builder_is_made_destroys_no_other() -> None:
    """It would wait for a lock that its own thread holds."""
    done = in_process(ALLOCATING)
    assert done.stdout == "3\n", done.stderr


def test_there_is_one_logger_for_each_library(rtx: TensorRTApi, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_api("tensorrt-rtx").logger is rtx.logger
    monkeypatch.setitem(sys.modules, "tensorrt", stand_in_tensorrt.module("tensorrt"))
    other = load_api("tensorrt")
    assert other.logger is not rtx.logger and other.logger is load_api("tensorrt").logger


def test_threads_that_ask_at_once_get_the_same_logger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages_module, "_logs", {})
    module = stand_in_tensorrt.module("tensorrt")
    ready, found = threading.Barrier(8), []

    def ask() -> None:
        ready.wait()
        found.append(library_log(module))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len({id(log) for log in found}) == 1


# Where messages arrive.


def test_the_librarys_messages_are_kept_by_severity(
    rtx: TensorRTApi, caplog: pytest.LogCaptureFixture
) -> None:
    messages = Messages()
    severity = rtx.module.ILogger
    with rtx.collecting(messages), caplog.at_level(logging.DEBUG, logger=messages_module.__name__):
        for level in ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"):
            rtx.logger.log(getattr(severity, level), f"a message of {level}")
    assert messages.errors == ["a message of INTERNAL_ERROR", "a message of ERROR"]
    assert messages.warnings == ["a message of WARNING"] and messages.notes == ["a message of INFO"]
    assert messages.complaints == 3 and len(caplog.records) == 5
    assert {record.levelno for record in caplog.records} == {logging.INFO, logging.DEBUG}


def test_the_library_itself_speaks_to_the_logger(rtx: TensorRTApi) -> None:
    messages = Messages()
    with rtx.collecting(messages):
        network = rtx.make_builder().create_network(1)
        network.error_recorder = None
        parser = rtx.module.OnnxParser(network, rtx.logger)
        assert not parser.parse(b"no model")
    assert any("Failed to parse" in text for text in messages.errors)


def error(api: TensorRTApi, text: str) -> None:
    api.logger.log(api.module.ILogger.ERROR, text)


def test_the_innermost_block_of_a_thread_gets_its_messages(rtx: TensorRTApi) -> None:
    """As when an engine is loaded, for its check, during its build."""
    build, load = Messages(), Messages()
    with rtx.collecting(build):
        error(rtx, "of the build")
        with rtx.collecting(load):
            error(rtx, "of the load")
            with rtx.collecting(build):
                error(rtx, "of the build again")
            error(rtx, "of the load again")
        error(rtx, "of the build at last")
    assert build.errors == ["of the build", "of the build again", "of the build at last"]
    assert load.errors == ["of the load", "of the load again"]


def test_a_block_that_fails_ends_as_well(rtx: TensorRTApi) -> None:
    outer, inner = Messages(), Messages()
    with rtx.collecting(outer):
        with pytest.raises(ZeroDivisionError), rtx.collecting(inner):
            raise ZeroDivisionError
        error(rtx, "afterwards")
    assert (outer.errors, inner.errors) == (["afterwards"], [])


def test_threads_keep_their_messages_apart(rtx: TensorRTApi) -> None:
    """A supervisor opens a runner in the background while another one infers."""
    main, background = Messages(), Messages()
    with rtx.collecting(main):

        def load() -> None:
            with rtx.collecting(background):
                error(rtx, "of the background")

        in_thread(load)
        error(rtx, "of the main thread")
        # A thread of the library's own: nobody knows whom it works for.
        in_thread(lambda: error(rtx, "of a thread of the library's"))
    assert background.errors == ["of the background"]
    assert main.errors == ["of the main thread", "of a thread of the library's"]


def test_a_message_of_the_librarys_own_threads_reaches_every_thread_once(rtx: TensorRTApi) -> None:
    first, second, outer = Messages(), Messages(), Messages()
    with rtx.collecting(outer), rtx.collecting(first):

        def other() -> None:
            with rtx.collecting(second), rtx.collecting(second):
                in_thread(lambda: error(rtx, "from elsewhere"))

        in_thread(other)
    assert (first.errors, second.errors, outer.errors) == (["from elsewhere"], ["from elsewhere"], [])


def test_an_error_that_nobody_collects_is_logged(rtx: TensorRTApi, caplog: pytest.LogCaptureFixture) -> None:
    severity = rtx.module.ILogger
    with caplog.at_level(logging.INFO, logger=messages_module.__name__):
        error(rtx, "of a destructor")
        rtx.logger.log(severity.WARNING, "a warning")
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.ERROR, "tensorrt_rtx: of a destructor")
    ]


def test_messages_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages_module, "KEPT_MESSAGES", 3)
    messages = Messages()
    for number in range(5):
        for level in (logging.ERROR, logging.WARNING, logging.INFO):
            messages.add(level, str(number))
    assert messages.errors == messages.warnings == messages.notes == ["2", "3", "4"]
    assert messages.complaints == 10
    assert take_errors(messages) == "2; 3; 4" and messages.errors == []
    assert take_errors(messages) == "it reported no reason"


# The recorder.


def test_a_damaged_engine_is_reported(rtx: TensorRTApi) -> None:
    messages = Messages()
    with rtx.collecting(messages):
        runtime = rtx.make_runtime()
        assert runtime.deserialize_cuda_engine(DAMAGED) is None
    assert sum("magicTag" in text for text in messages.errors) == 1
    assert runtime.error_recorder is library_log(rtx.module).recorder


def test_a_build_that_fails_is_reported(rtx: TensorRTApi) -> None:
    messages = Messages()
    with rtx.collecting(messages):
        builder = rtx.make_builder()
        network, config = builder.create_network(1), builder.create_builder_config()
        assert builder.build_serialized_network(network, config) is None
    assert sum("at least one output" in text for text in messages.errors) == 1
    assert builder.error_recorder is library_log(rtx.module).recorder


def test_the_registry_reports_without_any_runtime(rtx: TensorRTApi) -> None:
    messages = Messages()
    registry = rtx.plugin_registry()
    with rtx.collecting(messages):
        assert registry.get_creator("Absent", "1", "vmkla") is None
    assert any("Cannot find plugin" in text for text in messages.errors)
    assert rtx.plugin_registry().error_recorder is library_log(rtx.module).recorder


FOREIGN = """
from vmkla.engines.tensorrt.api import load_api
from vmkla.engines.tensorrt.messages import Messages
api, messages, heard = load_api("tensorrt-rtx"), Messages(), []
class Foreign(api.module.ILogger):
    def __init__(self):
        super().__init__()
    def log(self, severity, msg):
        heard.append(severity)
foreign = Foreign()
another_programs = api.module.Runtime(foreign)
with api.collecting(messages):
    assert api.make_runtime().deserialize_cuda_engine(b"no engine" * 20) is None
assert api.module.ILogger.ERROR not in heard
print(sum("magicTag" in text for text in messages.errors))
"""


def test_errors_arrive_although_another_programs_logger_came_first() -> None:
    done = in_process(FOREIGN)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


OUTLIVED = """
import gc
from vmkla.engines.tensorrt.api import load_api
api = load_api("tensorrt-rtx")
builder = api.make_builder()
config = builder.create_builder_config()
cache = config.create_timing_cache(b"")
assert config.set_timing_cache(cache, False)
kept = config.get_timing_cache()
del builder
gc.collect()
del config, cache
gc.collect()
del kept
gc.collect()
print("alive")
"""


def test_the_recorder_outlives_what_it_is_handed_on_to() -> None:
    done = in_process(OUTLIVED)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


@pytest.mark.parametrize("library", ["tensorrt-rtx", "stand-in"])
def test_the_recorder_is_bounded_and_can_be_cleared(rtx: TensorRTApi, library: str) -> None:
    log = LibraryLog(rtx.module if library == "tensorrt-rtx" else stand_in_tensorrt.module("tensorrt"))
    code = rtx.module.ErrorCodeTRT.FAILED_EXECUTION
    recorder, messages = log.recorder, Messages()
    assert (recorder.num_errors(), recorder.has_overflowed()) == (0, False)
    with log.collecting(messages):
        for number in range(KEPT_ERRORS):
            assert recorder.report_error(code, str(number)) is True
        assert (recorder.num_errors(), recorder.has_overflowed()) == (KEPT_ERRORS, False)
        recorder.report_error(code, "last")
    assert (recorder.num_errors(), recorder.has_overflowed()) == (KEPT_ERRORS, True)
    assert recorder.get_num_errors() == KEPT_ERRORS
    assert recorder.get_error_code(0) == code
    assert (recorder.get_error_desc(0), recorder.get_error_desc(KEPT_ERRORS - 1)) == ("1", "last")
    assert messages.errors == [*map(str, range(KEPT_ERRORS)), "last"]
    recorder.clear()
    assert (recorder.num_errors(), recorder.has_overflowed()) == (0, False)


def test_what_threads_report_at_once_is_all_there(rtx: TensorRTApi) -> None:
    log, messages = LibraryLog(rtx.module), Messages()
    code = rtx.module.ErrorCodeTRT.FAILED_EXECUTION

    def report(name: int) -> None:
        for number in range(KEPT_ERRORS // 8):
            log.recorder.report_error(code, f"{name} {number}")

    with log.collecting(messages):
        threads = [threading.Thread(target=report, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    kept = [log.recorder.get_error_desc(index) for index in range(log.recorder.num_errors())]
    expected = sorted(f"{name} {number}" for name in range(8) for number in range(KEPT_ERRORS // 8))
    assert sorted(kept) == sorted(messages.errors) == expected and not log.recorder.has_overflowed()
