"""An observer that is killed again and again, under load, loses no round and shows none twice."""

from __future__ import annotations

import json
import random
import re
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from tests.e2e.swarm import RUN, Daemon, Swarm

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(600)]
KILLS = 20
READERS = 4


def page_of(observer: Daemon, start: int = 0) -> str:
    """Return the address of the page of start number `start`; empty before it is ready."""
    found = re.findall(r"Ready: the page is at (http\S+)", observer.log())
    return str(found[start]) if len(found) > start else ""


def history(page: str) -> list[int]:
    numbers: list[int] = []
    target = "api/v1/history?limit=50"
    while target:
        with urlopen(page + target.lstrip("/"), timeout=10) as answer:
            body = json.load(answer)
        numbers += [one["number"] for one in body["rounds"]]
        target = body["next"]
    return numbers


def read_until(stop: threading.Event, page: list[str]) -> None:
    """Ask the observer for everything, as fast as it answers."""
    while not stop.is_set():
        for path in ("", "api/v1/history?limit=500", "api/v1/events?limit=500", "metrics"):
            with suppress(URLError, OSError, ValueError):
                urlopen(page[0] + path, timeout=5).read()
        time.sleep(0.05)


def test_observer_killed_twenty_times_under_load_has_a_complete_history(tmp_path: Path) -> None:
    seed = random.Random(19)
    with Swarm(tmp_path, run=f"rules = 3\n{RUN}") as swarm:
        first = swarm.begin()
        second = swarm.join("second", first)
        swarm.until_round(2, first, second)
        observer = swarm.observe("observer", first, second)
        swarm.until(lambda: page_of(observer), "the observer serves its page", 60)
        stop, page = threading.Event(), [page_of(observer)]
        readers = [threading.Thread(target=read_until, args=(stop, page)) for _ in range(READERS)]
        for reader in readers:
            reader.start()
        try:
            for start in range(1, KILLS + 1):
                time.sleep(seed.uniform(0.5, 3.0))
                swarm.daemons.remove(observer)
                observer.kill_alone()
                arguments = ["observe", *swarm._addresses([first])]
                observer.start(
                    swarm._lifeline, {"observer": {"host": "127.0.0.1", "port": 0}}, arguments
                )
                swarm.daemons.append(observer)
                swarm.until(partial(page_of, observer, start), "the observer is back", 60)
                page[0] = page_of(observer, start)
        finally:
            stop.set()
            for reader in readers:
                reader.join()
        reached = first.now().run.number
        swarm.until(
            lambda: max(history(page[0]), default=0) >= reached, "the observer has caught up", 60
        )
        numbers = history(page[0])
        assert numbers == list(range(len(numbers), 0, -1))
        assert numbers[0] >= reached
        assert "Traceback" not in observer.log()
        print(f"{KILLS} kills, {len(numbers)} rounds, none missing or twice")
