"""The page that `hypergpud start` serves of its own node, from the node's own journal.

Only this machine reaches the page. The node trains with it or without it: a page that cannot be
served is a warning.
"""

from __future__ import annotations

from functools import partial

import trio

from daemon.config.settings import Config
from daemon.journal import Journal
from daemon.node.observer_control import owned_by, training_control
from daemon.node.observer_history import observer_history
from daemon.node.observer_rewards import RewardsLookup
from daemon.observer.bridge import Bridge, publish_regularly
from daemon.observer.server import web_server
from daemon.observer.settings import ObserverSettings
from daemon.system.offload import in_thread
from daemon.system.trio_types import TaskStatus
from protocol.errors import UserError
from protocol.journal import Warned
from protocol.membership.owner_record import OwnerRecords
from protocol.rules.versions import RULES_4
from protocol.run.manifest import SignedManifest

# What a browser on this machine opens, and nobody else.
HOST = "127.0.0.1"
# As many nodes on one machine have pages at ports that a person can guess.
MORE_PORTS = 10


class NodePage:
    """The page of one node. Satisfies `daemon.node.node_parts.Page`."""

    def __init__(self, config: Config, journal: Journal) -> None:
        self._config, self._journal = config, journal
        self._bridge = Bridge()

    async def run(self, *, task_status: TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve the page until cancelled. Starts with its address, or with an empty text."""
        port = self._config.page.port
        settings = ObserverSettings(host=HOST, port=port, more_ports=MORE_PORTS if port else 0)
        # The events stay in memory: an observer keeps a history on disk.
        try:
            async with (
                observer_history(self._bridge, self._journal, self._config.home, 0),
                web_server(self._bridge, settings) as bound,
            ):
                task_status.started(bound.url)
                await publish_regularly(self._bridge, self._journal.status)
        except UserError as error:
            message = f"This node has no page. {error.what} {error.why}".rstrip()
            self._journal.record(Warned(code="PAGE", message=message))
            task_status.started("")

    async def show_run(self, signed: SignedManifest, records: OwnerRecords) -> None:
        """Answer questions about the run's pay and take its owner's orders from now on."""
        bridge, config, manifest = self._bridge, self._config, signed.open()
        bridge.rewards = RewardsLookup(config.chain, signed, config.home)
        if manifest.owner and manifest.rules >= RULES_4:
            owned = await in_thread(partial(owned_by, config.home, signed))
            bridge.control = await training_control(
                config.home, signed, records, owned, self._journal
            )
