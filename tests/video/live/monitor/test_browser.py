"""The page in a real Chromium: what it shows, that it follows by itself, and that it shows nothing old."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.expected_conditions import staleness_of
from selenium.webdriver.support.wait import WebDriverWait

from tests.browser import headless_chromium
from tests.video.live.monitor.displays import DEADLINE_S, TOKEN, Display, served, wait_for
from vmkla.video.live.frame import AiState, SignalState
from vmkla.video.live.monitor.process import Monitor

# (width, height, ...): of the frame's middle, as the page has drawn it.
DRAWN = """
const canvas = document.getElementById("picture");
const at = canvas.getContext("2d").getImageData(canvas.width >> 1, canvas.height >> 1, 1, 1).data;
return [canvas.width, canvas.height, ...at];
"""

# Heights and classes of a histogram's bars, and the class of the figure above it, at one moment.
BARS = """
const figure = document.getElementById(arguments[0]);
const bars = [...figure.querySelectorAll(".bars i")];
return [bars.map((bar) => bar.clientHeight), bars.map((bar) => bar.className),
        figure.querySelector(".main").className];
"""

# Elements that reach beyond the page's width.
OVER_THE_EDGE = """
return [...document.querySelectorAll("body *")]
    .filter((element) => element.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
    .map((element) => element.tagName + " " + element.id + " " + element.textContent);
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """A headless Chromium."""
    with headless_chromium(tmp_path_factory.mktemp("chromium")) as started:
        yield started


@pytest.fixture(scope="module")
def monitor(display: Display) -> Iterator[Monitor]:
    """The page's server."""
    with served(display) as running:
        yield running


@pytest.fixture
def page(browser: webdriver.Chrome, display: Display, monitor: Monitor) -> Iterator[webdriver.Chrome]:
    """The page, live and with AI on."""
    display.ai, display.reason, display.signal = AiState.ON, "", SignalState.GOOD
    display.paused.clear()
    browser.get(monitor.url)
    wait_for("AI ON", lambda: text(browser, "ai") == "AI ON")
    wait_for("a picture", lambda: not browser.find_element(By.ID, "cover").is_displayed())
    yield browser
    display.paused.clear()


def text(browser: webdriver.Chrome, name: str) -> str:
    """What an element says."""
    return str(browser.find_element(By.ID, name).text)


def drawn(browser: webdriver.Chrome) -> list[int]:
    """Width and height of the frame on the page, and red, green, blue and opacity of its middle."""
    found: list[int] = browser.execute_script(DRAWN)
    return found


def nothing_is_believed(browser: webdriver.Chrome) -> bool:
    """The page says that it knows nothing, and shows neither state nor frame nor figures."""
    body = browser.find_element(By.TAG_NAME, "body")
    if body.get_attribute("class") != "unknown":
        return False
    assert text(browser, "ai") == "NO CONNECTION" and "AI ON" not in body.text
    cover = browser.find_element(By.ID, "cover")
    assert cover.is_displayed() and cover.text == "NOT LIVE"
    assert drawn(browser)[5] == 0, "the old picture is gone"
    assert {text(browser, name) for name in ("signal", "fps", "shown", "received", "dropped")} == {"–"}
    assert not browser.find_elements(By.CSS_SELECTOR, ".bars i")
    return True


def test_it_shows_frame_state_figures_and_events(page: webdriver.Chrome, display: Display) -> None:
    display.events.add("worker died", "signal 9")
    assert drawn(page)[:2] == [160, 120]
    assert np.abs(np.array(drawn(page)[2:5]) - (20, 90, 200)).max() <= 3
    assert text(page, "signal") == "good" and text(page, "recording") == "off"
    assert text(page, "dropped") == "5" and text(page, "restarts") == "4"
    assert text(page, "causes") == "Dropped: not taken: 3, damaged: 2."
    wait_for("the event", lambda: "worker died signal 9" in " ".join(text(page, "events").split()))


def test_its_histograms_show_what_is_beyond_the_limit(page: webdriver.Chrome) -> None:
    for name, bars, over in (("video", 14, False), ("marker", 11, True)):
        heights, classes, judged = page.execute_script(BARS, name)
        assert len(heights) == bars and sum(height > 0 for height in heights) == 1
        assert (classes[int(np.argmax(heights))] == "over") is over
        assert ("bad" in judged) is over
    assert "p99 1.25 ms" in text(page, "video") and "limit 5.75 ms" in text(page, "video")
    assert "p95 250 ms" in text(page, "marker") and "limit 120 ms" in text(page, "marker")


def test_it_follows_by_itself(page: webdriver.Chrome, display: Display) -> None:
    shown = text(page, "shown")
    wait_for("more pictures", lambda: text(page, "shown") != shown)
    before = display.rgb
    display.rgb = np.full((240, 200, 3), (250, 10, 30), np.uint8)  # another size, another colour
    wait_for("the new size", lambda: drawn(page)[:2] == [200, 240])
    wait_for("the new colour", lambda: np.abs(np.array(drawn(page)[2:5]) - (250, 10, 30)).max() <= 3)
    display.ai, display.reason = AiState.OFF, "the worker died"
    wait_for("AI OFF", lambda: text(page, "ai") == "AI OFF")
    assert text(page, "reason") == "The worker died."
    assert page.find_element(By.TAG_NAME, "body").get_attribute("class") == "off"
    display.ai, display.reason = AiState.PAUSED, "poor picture: blur"
    wait_for("AI PAUSED", lambda: text(page, "ai") == "AI PAUSED")
    assert text(page, "reason") == "Poor picture: blur."
    assert page.find_element(By.TAG_NAME, "body").get_attribute("class") == "paused"
    display.ai, display.reason = AiState.STARTING, ""
    wait_for("AI STARTING", lambda: text(page, "ai") == "AI STARTING")
    display.signal = SignalState.LOST
    wait_for("NO SIGNAL", lambda: text(page, "cover") == "NO SIGNAL")
    assert text(page, "signal") == "lost"
    display.ai, display.reason, display.signal = AiState.ON, "", SignalState.GOOD
    wait_for("AI ON", lambda: text(page, "ai") == "AI ON")
    wait_for("the picture", lambda: not page.find_element(By.ID, "cover").is_displayed())
    display.rgb = before


def test_a_silent_display_is_shown_as_such(page: webdriver.Chrome, display: Display) -> None:
    display.paused.set()
    wait_for("NO CONNECTION", lambda: nothing_is_believed(page))
    assert text(page, "reason").startswith("Last heard at ")
    display.paused.clear()
    wait_for("AI ON", lambda: text(page, "ai") == "AI ON")


def test_frames_that_stop_are_not_left_standing(page: webdriver.Chrome, display: Display) -> None:
    whole = display.ring.publish
    display.ring.publish = lambda frame: None  # type: ignore[method-assign] # the status goes on
    try:
        wait_for("NO PICTURE", lambda: text(page, "cover") == "NO PICTURE")
        assert drawn(page)[5] == 0 and text(page, "ai") == "AI ON"
    finally:
        display.ring.publish = whole  # type: ignore[method-assign]
    wait_for("the picture", lambda: not page.find_element(By.ID, "cover").is_displayed())


def test_a_stopped_server_is_shown_as_such(page: webdriver.Chrome, monitor: Monitor) -> None:
    pid = monitor.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)  # connections stay open, and nothing answers
    try:
        wait_for("NO CONNECTION", lambda: nothing_is_believed(page))
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for("AI ON", lambda: text(page, "ai") == "AI ON")


def test_a_killed_server_is_shown_as_such_and_comes_back(page: webdriver.Chrome, monitor: Monitor) -> None:
    page.execute_script(  # the page may come back before the test looks
        "window.seen = []; new MutationObserver(() => window.seen.push(document.body.className))"
        ".observe(document.body, {attributes: true});"
    )
    killed: set[int | None] = {None}
    for _ in range(3):  # the pause before a restart grows, beyond what the page takes for a slow answer
        pid = wait_for("another server", lambda: monitor.pid not in killed and monitor.pid)
        os.kill(pid, signal.SIGKILL)
        killed.add(pid)
    wait_for("NO CONNECTION", lambda: "unknown" in page.execute_script("return window.seen"))
    wait_for("AI ON", lambda: text(page, "ai") == "AI ON")


def test_a_page_out_of_sight_believes_nothing(page: webdriver.Chrome) -> None:
    page.execute_script("window.dispatchEvent(new PageTransitionEvent('pagehide'));")
    state = page.execute_script(
        "window.dispatchEvent(new Event('pagehide')); return [document.body.className,"
        " document.getElementById('ai').textContent];"
    )
    assert state == ["unknown", "NO CONNECTION"]
    wait_for("AI ON", lambda: text(page, "ai") == "AI ON")


def test_the_title_never_says_a_state(page: webdriver.Chrome) -> None:
    assert page.title == "vmkla monitor", "tabs out of sight keep an old title"


def test_it_asks_nobody_else_and_nothing_fails(page: webdriver.Chrome, monitor: Monitor) -> None:
    page.get_log("browser")
    page.get_log("performance")
    page.refresh()
    wait_for("AI ON", lambda: text(page, "ai") == "AI ON")
    shown = text(page, "shown")
    wait_for("more pictures", lambda: text(page, "shown") != shown)
    asked = [
        entry["message"].split('"url":"')[1].split('"')[0]
        for entry in page.get_log("performance")
        if '"Network.requestWillBeSent"' in entry["message"]
    ]
    assert len(asked) >= 5
    assert {url for url in asked if not url.startswith((monitor.url, "data:"))} == set()
    assert page.get_log("browser") == [], "no script fails and the content security policy holds nothing back"


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (1920, 1080), (390, 844), (320, 600)])
def test_the_state_is_large_and_nothing_runs_over_the_edge(
    page: webdriver.Chrome, display: Display, width: int, height: int
) -> None:
    size: dict[str, Any] = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        wait_for("the width", lambda: page.execute_script("return window.innerWidth") == width)
        assert page.find_element(By.ID, "ai").size["height"] >= 0.07 * height
        for paused in (False, True):
            (display.paused.set if paused else display.paused.clear)()
            wait_for("the state", lambda: nothing_is_believed(page) is paused)  # noqa: B023
            assert page.execute_script(OVER_THE_EDGE) == []
            assert page.find_element(By.ID, "ai").rect["x"] >= 0
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_token_opens_the_page_and_leaves_its_address(
    browser: webdriver.Chrome, display: Display, tmp_path: Path
) -> None:
    with served(display, TOKEN) as guarded:
        browser.get(guarded.url)
        assert "needs its token" in browser.find_element(By.TAG_NAME, "body").text
        for given in ("wrong", TOKEN):
            form = browser.find_element(By.TAG_NAME, "form")
            browser.find_element(By.ID, "token").send_keys(given)
            form.submit()
            WebDriverWait(browser, DEADLINE_S).until(staleness_of(form))
        wait_for("AI ON", lambda: browser.find_elements(By.ID, "ai") and text(browser, "ai") == "AI ON")
        assert browser.current_url == guarded.url and TOKEN not in browser.page_source
        assert browser.execute_script("return document.cookie") == "", "no script reads the cookie"
        browser.delete_all_cookies()
        wait_for("NO CONNECTION", lambda: nothing_is_believed(browser))
        assert "token" in text(browser, "reason")
        browser.get("data:,")  # the next page asks anew
