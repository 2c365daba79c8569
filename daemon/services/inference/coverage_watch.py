"""Finds the models that a run's nodes serve beside training, and watches who serves their layers.

An observer has no model on its disk. It asks each node that it is connected to once whether the
node serves a model, and then takes part in the exchange of announcements without answering.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import trio

from daemon.services.inference.coverage_report import CoverageReporter
from daemon.services.inference.model_exchange import fetch_model
from daemon.services.inference.stage_exchange import StageExchange
from daemon.services.inference.stage_server import Refuse
from protocol.digest import Digest
from protocol.errors import PeerFault, Unreachable
from protocol.identity import PeerId
from protocol.inference.announcement import StageDirectory
from protocol.inference.model import ModelManifest, model_name
from protocol.journal import JournalEvent
from protocol.ports.network import Network

LOOK_S = 2.0
"""Between two looks at the links, and at the stages of each model: as often as stages announce."""

ASK_AGAIN_S = 60.0
"""Before a node that named no model is asked again: it may begin to serve one."""

ASKED_AT_ONCE = 4
MAX_MODELS = 4
"""Models that are watched. Strangers could invent any number."""

MAX_ASKED = 1024
"""Peers whose last question is remembered; the one asked longest ago goes first."""


class CoverageWatch:
    """Watches the models of one network while `run` runs."""

    def __init__(
        self,
        network: Network,
        record: Callable[[JournalEvent], None],
        refuse: Refuse,
        rng: random.Random | None = None,
    ) -> None:
        self._network, self._record, self._refuse = network, record, refuse
        self._rng = rng
        self._models: set[Digest] = set()
        # When each peer was last asked; the newest comes last.
        self._asked: dict[PeerId, float] = {}
        self._asking = trio.CapacityLimiter(ASKED_AT_ONCE)

    async def run(self) -> None:
        """Ask and watch, until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                if len(self._models) < MAX_MODELS:
                    for link in self._network.links():
                        self._ask_soon(link.peer, nursery)
                await trio.sleep(LOOK_S)

    def _ask_soon(self, peer: PeerId, nursery: trio.Nursery) -> None:
        now = trio.current_time()
        if now - self._asked.get(peer, -ASK_AGAIN_S) < ASK_AGAIN_S:
            return
        self._asked.pop(peer, None)
        self._asked[peer] = now
        if len(self._asked) > MAX_ASKED:
            del self._asked[next(iter(self._asked))]
        nursery.start_soon(self._ask, peer, nursery)

    async def _ask(self, peer: PeerId, nursery: trio.Nursery) -> None:
        async with self._asking:
            try:
                manifest = (await fetch_model(self._network, peer)).open()
            except Unreachable:
                # It serves no model, or is gone.
                return
            except PeerFault as fault:
                self._refuse(fault.reason, peer, str(fault))
                return
        model = model_name(manifest)
        if model not in self._models and len(self._models) < MAX_MODELS:
            self._models.add(model)
            nursery.start_soon(self._watch, model, manifest)

    async def _watch(self, model: Digest, manifest: ModelManifest) -> None:
        directory = StageDirectory(model)
        exchange = StageExchange(
            self._network, directory, self._refuse, rng=self._rng, answers=False
        )
        reporter = CoverageReporter(model, manifest, self._record, trio.current_time)
        async with trio.open_nursery() as nursery:
            await nursery.start(exchange.run)
            while True:
                await trio.sleep(LOOK_S)
                reporter.report(directory.stages(trio.current_time()))
