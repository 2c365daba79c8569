"""The observer beside a real swarm serves what the daemons report, and its page updates."""

from __future__ import annotations

import json
import re
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import msgspec
import pytest

from protocol.status import Status
from tests.browser import chromium, chromium_path
from tests.e2e.pair.conftest import Pair
from tests.e2e.processes import until
from tests.e2e.swarm import ROUND_S, certified

pytestmark = [
    pytest.mark.real,
    pytest.mark.swarm,
    pytest.mark.xdist_group("pair"),
    pytest.mark.timeout(180),
]


def get(url: str, **headers: str) -> bytes:
    with urlopen(Request(url, headers=headers), timeout=5) as answer:
        return bytes(answer.read())


def seen_by_the_observer(pair: Pair) -> Status:
    return msgspec.json.decode(get(f"{pair.page}api/v1/status"), type=Status)


def test_observer_serves_what_it_verified(pair: Pair) -> None:
    target = pair.target.now()
    until(
        lambda: seen_by_the_observer(pair).run.number > target.run.number,
        "the observer follows",
        ROUND_S,
    )
    status, now = seen_by_the_observer(pair), pair.target.now()
    assert (status.you.role, status.run.run) == ("observer", now.run.run)
    ours, theirs = certified(now), certified(status)
    both = ours.keys() & theirs.keys()
    assert both
    assert all(theirs[number].certificate == ours[number].certificate for number in both)
    assert all(theirs[number].contributors == ours[number].contributors for number in both)

    assert json.loads(get(f"{pair.page}healthz"))["ok"] is True
    assert json.loads(get(f"{pair.page}readyz"))["ok"] is True
    peers = json.loads(get(f"{pair.page}api/v1/peers"))
    assert {"target", "other"} <= {peer["name"] for peer in peers["peers"]}
    assert json.loads(get(f"{pair.page}api/v1/rounds"))["rounds"][0]["number"] >= status.run.number
    metrics = get(f"{pair.page}metrics").decode()
    (number,) = re.findall(r"^hypergpu_round (\d+)\.0$", metrics, re.MULTILINE)
    assert int(number) >= status.run.number
    with pytest.raises(HTTPError) as refused:
        get(f"{pair.page}api/v1/status", Host="rebound.example")
    assert refused.value.code == 421


@pytest.mark.browser
@pytest.mark.skipif(
    chromium_path() is None, reason="chromium is not installed: apt-get install chromium"
)
def test_page_shows_a_new_round_without_a_reload(pair: Pair) -> None:
    with chromium() as browser:
        browser.open(pair.page)
        browser.evaluate("window.never_reloaded = true")
        shown = browser.evaluate("document.title")
        (number,) = re.findall(r"round ([\d,]+)", shown)
        later = int(number.replace(",", "")) + 2
        browser.wait_for(
            f"Number((document.title.match(/round ([0-9,]+)/) || [])[1].replace(',', '')) >="
            f" {later}",
            timeout_s=ROUND_S,
        )
        assert browser.evaluate("window.never_reloaded") is True
        assert "target" in browser.evaluate("document.querySelector('.peers').innerText")
        assert browser.problems == []
