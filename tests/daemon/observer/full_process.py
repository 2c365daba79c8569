"""A web side with everything behind it, in a process of its own, for requests of all kinds.

It has a history on disk, an owner's key, and a chain that answers: nothing answers 503. It prints
its address, then certifies a round a second.

python -m tests.daemon.observer.full_process FOLDER
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import trio

from daemon.home.owned_run import OwnedRun
from daemon.journal import Journal
from daemon.node.observer_control import TrainingControl
from daemon.node.observer_history import observer_history
from daemon.node.run_choice import seal_run
from daemon.observer.api.query import BadQuery
from daemon.observer.api.resources import RewardsBody
from daemon.observer.bridge import Bridge
from daemon.observer.server import web_server
from daemon.observer.settings import ObserverSettings
from protocol.chain.keccak import checked_address
from protocol.errors import UserError
from protocol.identity import Signer
from protocol.membership.owner_record import OwnerRecords
from protocol.run.manifest import Manifest
from tests.story import certified, day, report

ROUND_S = 1.0
TOKEN = "t" * 43
OWNER = Signer(bytes(32))
SIGNED = seal_run(Manifest(name="run", task="none", rules=4), OWNER)


def rewards(address: str, as_of: float) -> RewardsBody:
    """Answer as the lookup of a run whose chain answers at once."""
    try:
        account = checked_address(address)
    except (UserError, ValueError) as error:
        raise BadQuery(f"This is no address: {error}") from None
    return RewardsBody(as_of=as_of, address=account, pays=True, earned="1000")


async def main(folder: Path) -> None:
    """Serve until killed."""
    bridge, journal = Bridge(), Journal(None, time.time)
    bridge.rewards = rewards
    records = OwnerRecords(SIGNED.run, OWNER.peer)
    owned = OwnedRun(signed=SIGNED, signer=OWNER)
    bridge.control = TrainingControl(folder, SIGNED, records, owned, TOKEN)
    path = folder / "history.sqlite"
    async with (
        observer_history(bridge, journal, path, limit_mb=16),
        web_server(bridge, ObserverSettings(port=0)) as bound,
    ):
        for event in day("observer", rounds=40):
            journal.record(event)
        bridge.publish(journal.status())
        print(bound.url, flush=True)
        number = 40
        while True:
            await trio.sleep(ROUND_S)
            number += 1
            journal.record(certified(number, "observed"))
            journal.record(report(1))
            bridge.publish(journal.status())


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]))
