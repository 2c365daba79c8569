"""The owner pauses, resumes and stops a run of real nodes, by command and over HTTP."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from tests.e2e.swarm import RUN, Daemon, Swarm, hypergpud

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(300)]
HEARD_S = 40.0


def phase(daemon: Daemon) -> str:
    return daemon.now().run.order


def test_an_owners_orders_reach_every_node(tmp_path: Path) -> None:
    with Swarm(tmp_path, run="rules = 4\n" + RUN) as swarm:
        owner = swarm.begin()
        owner.now()
        swarm.until(lambda: "a friend joins with" in owner.log(), "the owner is ready")
        friend = swarm.join("friend", owner)
        swarm.until_round(2, owner, friend)

        said = hypergpud("run", "pause", home=owner.home)
        assert "Signed order 1" in said.stdout, said.stderr
        swarm.until(lambda: phase(friend) == phase(owner) == "pause", "both pause", HEARD_S)
        assert "The run's owner paused training" in friend.now().verdict
        refused = hypergpud("resume", home=friend.home)
        assert "The run's owner paused training" in refused.stderr
        assert "Only the owner" in hypergpud("run", "resume", home=friend.home).stderr
        assert "Nothing to do" in hypergpud("run", "pause", home=owner.home).stdout
        reached = friend.now().run.number

        observer = swarm.observe("watch", friend)
        swarm.until(lambda: "Ready: the page is at" in observer.log(), "the page is served")
        (page,) = re.findall(r"Ready: the page is at (http\S+)", observer.log())

        def state() -> str:
            with urlopen(f"{page}api/status", timeout=5) as answer:
                return str(json.load(answer)["state"])

        swarm.until(lambda: state() == "paused", "an observer shows the pause", HEARD_S)
        assert "Signed order 2" in hypergpud("run", "resume", home=owner.home).stdout
        swarm.until_round(reached + 2, owner, friend)
        swarm.until(lambda: state() == "running", "an observer shows that it goes on", HEARD_S)

        # On the owner's own home, the token is enough.
        with own_page(owner, tmp_path / "page.log") as page_of_owner:
            swarm.until(page_of_owner, "the owner's page is served")
            stop_over_http(owner, page_of_owner())
            swarm.daemons.remove(friend)
            swarm.daemons.remove(owner)
            try:
                for daemon in (friend, owner):
                    assert daemon.wait(HEARD_S), f"{daemon.name} does not stop"
                    assert daemon.ending == "ended with exit code 0"
                    assert "the run's owner stopped training" in daemon.log()
            finally:
                swarm.daemons += [friend, owner]


@contextmanager
def own_page(owner: Daemon, log: Path) -> Iterator[Callable[[], str]]:
    """Run an observer on the owner's home. Yields what returns its address, once it is ready."""
    join = owner.now().you.addresses[0]
    command = ["observe", "--home", str(owner.home), "--port", "0", "--join", join]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "daemon.cli.main", *command], stdout=output, stderr=output
        )

    def address() -> str:
        found = re.search(r"Ready: the page is at (http\S+)", log.read_text(errors="replace"))
        return found[1] if found and (owner.home / "api-token").exists() else ""

    try:
        yield address
    finally:
        process.terminate()
        process.wait(20)


def stop_over_http(owner: Daemon, page: str) -> None:
    token = (owner.home / "api-token").read_text()
    request = Request(
        f"{page}api/training/stop", method="POST", headers={"Authorization": f"Bearer {token}"}
    )
    with urlopen(request, timeout=5) as answer:
        assert json.load(answer)["changed"] is True
