"""The page of a real observer: a node that dies is shown within five seconds."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.browser import chromium, chromium_path
from tests.e2e.swarm import RUN, Swarm
from tests.e2e.test_observer_history import page_of

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.browser,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        chromium_path() is None, reason="chromium is not installed: apt-get install chromium"
    ),
]
SHOWN_S = 5.0


def test_page_shows_a_killed_daemon_within_five_seconds(tmp_path: Path) -> None:
    with Swarm(tmp_path, run=f"rules = 3\n{RUN}") as swarm:
        first = swarm.begin()
        second = swarm.join("second", first)
        swarm.until_round(2, first, second)
        observer = swarm.observe("observer", first, second)
        swarm.until(lambda: page_of(observer), "the observer serves its page", 60)
        with chromium() as browser:
            browser.open(page_of(observer))
            rows = "[...document.querySelectorAll('.peers tr')]"
            row = f"{rows}.find(one => one.innerText.includes('second'))"
            browser.wait_for(f"{row} && !{row}.classList.contains('gone')", timeout_s=60)
            browser.evaluate("window.never_reloaded = true")
            swarm.daemons.remove(second)
            second.kill_alone()
            killed = time.monotonic()
            browser.wait_for(f"{row} && {row}.classList.contains('gone')", timeout_s=3 * SHOWN_S)
            took = time.monotonic() - killed
            print(f"the page showed the killed node after {took:.1f} s")
            assert took < SHOWN_S
            assert "lost" in browser.evaluate(f"{row}.innerText")
            assert browser.evaluate("window.never_reloaded") is True
            assert browser.problems == []
