"""The page of the node on this home, from the node's own status: `hypergpud observe --own`.

It asks the node over the control socket, so that it needs no key, no network and no run. It shows
what only the node knows: its phases, its device, its disk, its restarts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import trio

from daemon.config.settings import Config
from daemon.control.client import call
from daemon.home.layout import ensure_home
from daemon.node.shutdown import ForcedExit, Shutdown, watch_lifeline, watch_signals
from daemon.observer.bridge import Bridge
from daemon.observer.history.event_feed import EventFeed
from daemon.observer.server import web_server
from daemon.observer.settings import ObserverSettings
from daemon.system.offload import in_thread
from protocol.errors import UserError
from protocol.status import RoundSummary, Status, StatusState, status_at

# Between two questions to the node.
ASK_S = 1.0


class OwnNode:
    """The node of a home, as its page shows it."""

    def __init__(self, home: Path, feed: EventFeed) -> None:
        self._home, self._feed = home, feed
        self._last: Status = status_at(StatusState(), time.time())
        self._seen: set[tuple[str, int, int]] | None = None

    def look(self) -> Status:
        """Return the node's status, or its last one with the reason why it does not answer. Blocks.

        New rounds become events of the feed.
        """
        try:
            status = msgspec.json.decode(call(self._home, "status"), type=Status)
        except UserError as error:
            why = f" {error.why[:1].upper()}{error.why[1:]}." if error.why else ""
            return msgspec.structs.replace(
                self._last, as_of=time.time(), level="bad", verdict=f"{error.what}{why}"
            )
        self._tell(status)
        self._last = status
        return status

    def _tell(self, status: Status) -> None:
        """Add the rounds that are new since the last look, oldest first."""
        names = {(one.certificate, one.number, one.view) for one in status.rounds}
        known, self._seen = self._seen, names
        if known is None:
            # What happened before the page was opened is on the page, and is no event.
            return
        for one in reversed(status.rounds):
            if (one.certificate, one.number, one.view) not in known:
                self._add(one)

    def _add(self, one: RoundSummary) -> None:
        failed = one.outcome == "missed"
        text = (
            f"Round {one.number} failed: {one.reason}"
            if failed
            else (f"Round {one.number} is certified; this node's work: {one.outcome}.")
        )
        self._feed.add(
            at=one.at,
            kind="try" if failed else "round",
            level="warning" if failed else "info",
            text=text,
            round=one,
        )


async def run(config: Config, lifeline: int | None, say: Callable[[str], None]) -> int:
    """Serve the page until it is asked to stop. Returns the exit status."""
    ensure_home(config.home)
    shutdown = Shutdown()
    with trio.CancelScope() as scope, ForcedExit(shutdown, scope.cancel) as leave_now:
        async with trio.open_nursery() as nursery:
            await nursery.start(watch_signals, shutdown, leave_now)
            if lifeline is not None:
                nursery.start_soon(watch_lifeline, shutdown, lifeline, leave_now)
            nursery.start_soon(_serve, config, say)
            await shutdown.wait()
            leave_now()
    say(f"Stopped: {shutdown.reason}.")
    return shutdown.exit_code


async def _serve(config: Config, say: Callable[[str], None]) -> None:
    bridge, given = Bridge(), config.observer
    settings = ObserverSettings(
        host=given.host, port=given.port, hosts=given.hosts, origins=given.origins
    )
    node = OwnNode(config.home, bridge.feed)
    async with web_server(bridge, settings) as bound:
        bridge.publish(await in_thread(node.look))
        say(f"Ready: the page of this node is at {bound.url}")
        while True:
            await trio.sleep(ASK_S)
            bridge.publish(await in_thread(partial(node.look)))
