"""A web side in a process of its own, for measurements: prints its address, then adds events.

python -m tests.daemon.observer.page_process EVENTS_PER_S
"""

from __future__ import annotations

import sys
import time

import trio

from daemon.observer.bridge import Bridge
from daemon.observer.server import web_server
from daemon.observer.settings import ObserverSettings
from protocol.status import fold, status_at
from tests.story import certified, day, folded, report


async def main(events_per_s: float) -> None:
    """Serve a run that certifies `events_per_s` rounds a second; 0 for a run that stands still."""
    state = folded(day("observer", rounds=40))
    bridge = Bridge()
    bridge.publish(status_at(state, time.time()))
    async with web_server(bridge, ObserverSettings(port=0)) as bound:
        print(bound.url, flush=True)
        number = 40
        while True:
            await trio.sleep(1.0 / events_per_s if events_per_s else 1.0)
            if not events_per_s:
                continue
            number += 1
            fold(state, certified(number, "observed", at=time.time()))
            fold(state, report(1, at=time.time()))
            bridge.publish(status_at(state, time.time()))
            # The text carries the time at which the certificate arrived.
            bridge.feed.add(
                at=time.time(),
                kind="round",
                level="info",
                text=repr(time.time()),
                round=state.rounds[0],
            )


if __name__ == "__main__":
    trio.run(main, float(sys.argv[1]))
