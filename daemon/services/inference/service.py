"""The inference service of a node that holds a stage of one model."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import trio

from daemon.services.inference.client import InferenceClient
from daemon.services.inference.coverage_report import CoverageReporter
from daemon.services.inference.model_exchange import serve_model
from daemon.services.inference.receipt_desk import ReceiptDesk
from daemon.services.inference.stage_exchange import StageExchange
from daemon.services.inference.stage_server import Refuse, StageServer
from daemon.services.inference.weight_server import WeightServer
from daemon.services.service import ServiceStatus
from daemon.system.offload import in_thread
from daemon.system.trio_types import TaskStatus
from protocol.digest import SHOWN_DIGITS, Digest
from protocol.errors import OurFault
from protocol.inference.announcement import (
    KnownStage,
    SignedAnnouncement,
    StageAnnouncement,
    StageDirectory,
    announce_stage,
)
from protocol.inference.coverage import choose_range, holders_by_layer
from protocol.inference.layers import LayerRange
from protocol.inference.model import ModelManifest, SignedModel, model_name, publish_model
from protocol.journal import JournalEvent
from protocol.ports.network import Network
from protocol.ports.stage import LocalModel, StageInfo

# How long a stage looks for others before it chooses its layers: two rounds of questions.
LOOK_S = 5.0
# An announcement is signed again after this time, however many ask for it.
ANNOUNCE_S = 1.0


class StageSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a node's stage serves."""

    name: str
    # None: the `count` layers that the swarm covers worst.
    layers: LayerRange | None
    count: int
    # The positions that all caches together may hold.
    cache_tokens: int
    # Where shards lie that other members ask for; None gives them none.
    shards: Path | None = None


class InferenceService:
    """Serves a stage of a model. Satisfies `Service`."""

    def __init__(
        self,
        local: LocalModel,
        settings: StageSettings,
        receipts: ReceiptDesk,
        next_serial: Callable[[], int],
        refuse: Refuse,
        say: Callable[[str], None],
        rng: random.Random | None = None,
        record: Callable[[JournalEvent], None] | None = None,
    ) -> None:
        """
        Args:
            local: the model on this machine.
            settings: what to serve of it.
            receipts: keeps the receipts of clients. Its key is this node's.
            next_serial: returns a number greater than every earlier one, across restarts.
            refuse: counts a refusal by reason, peer and detail.
            say: shows a sentence to the person who started the node.
            rng: chooses which peers the node asks.
            record: receives who serves which layers; None where nobody asks.
        """
        self._local, self._settings, self._receipts = local, settings, receipts
        self._next_serial, self._refuse, self._say = next_serial, refuse, say
        self._rng, self._record = rng, record
        self.model = model_name(local.manifest)
        self._directory = StageDirectory(self.model)
        self._network: Network | None = None
        self._server: StageServer | None = None
        self._exchange: StageExchange | None = None
        self._weights: WeightServer | None = None
        self._info: StageInfo | None = None
        self._signed: SignedModel | None = None
        self._announced: tuple[float, SignedAnnouncement] | None = None
        self._finish = trio.Event()

    def register(self, network: Network) -> None:
        """Register the protocols of a stage."""
        manifest = self._local.manifest
        self._network = network
        self._server = StageServer(
            network, manifest, self.model, self._refuse, self._receipts.signer, self._receipts
        )
        self._exchange = StageExchange(
            network, self._directory, self._refuse, self._announcement, self._rng
        )
        if self._settings.shards is not None:
            self._weights = WeightServer(
                network, manifest, self._settings.shards, self._local.export, in_thread
            )
        serve_model(network, lambda: self._signed, self._local.tokenizer_file())

    @asynccontextmanager
    async def resources(self) -> AsyncIterator[None]:
        """Start nothing: which layers the stage loads depends on the swarm, which `run` asks."""
        yield

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Load the layers and serve them, until `finish` was called."""
        network, server, exchange = self._registered()
        async with trio.open_nursery() as nursery:
            await nursery.start(exchange.run)
            layers = self._settings.layers or await self._choose_layers()
            self._say(f"Loading layers {layers} of {self._local.manifest.name}.")
            async with self._local.stage(layers, self._settings.cache_tokens) as stage:
                info = await stage.describe()
                await nursery.start(server.run, stage, info)
                signer = self._receipts.signer
                self._signed = publish_model(self._local.manifest, info.kernel, signer)
                self._info = info
                self._say(_serving(self._local.manifest.name, self.model, info))
                if self._weights is not None:
                    nursery.start_soon(self._weights.run)
                nursery.start_soon(network.provide, self.model)
                task_status.started()
                if self._record is not None:
                    nursery.start_soon(self._report, self._record)
                await self._finish.wait()
            nursery.cancel_scope.cancel()

    async def hold(self, held: bool) -> None:
        """Change nothing: a stage works for others alone, who are served all the time."""

    def finish(self) -> None:
        """End `run`. Clients replay their generations at other stages."""
        self._finish.set()

    @property
    def open_generations(self) -> int:
        return 0 if self._server is None else self._server.open_generations

    def status(self) -> ServiceStatus:
        """Return which layers are served, and how many generations are open."""
        if self._info is None or self._server is None:
            return ServiceStatus(name="inference", state="starting")
        detail = (
            f"layers {self._info.layers} of {self._local.manifest.name},"
            f" {self._server.open_generations} generations,"
            f" {self._server.tokens_computed} tokens computed"
        )
        return ServiceStatus(name="inference", state="running", detail=detail)

    def client(self) -> InferenceClient:
        """Return a client for the same model, which uses the other stages of the swarm."""
        network, _, exchange = self._registered()
        return InferenceClient(network, self._local.manifest, self.model, self._directory, exchange)

    @property
    def manifest(self) -> ModelManifest:
        return self._local.manifest

    @property
    def info(self) -> StageInfo | None:
        """What the stage reports about itself; None before its layers are loaded."""
        return self._info

    async def _choose_layers(self) -> LayerRange:
        """Return the layers that the swarm covers worst, as far as this node knows it."""
        await trio.sleep(LOOK_S)
        manifest = self._local.manifest
        known = self._directory.stages(trio.current_time())
        held = holders_by_layer((one.stage.layers for one in known), manifest.layers)
        return choose_range(held, min(self._settings.count, manifest.layers))

    async def _report(self, record: Callable[[JournalEvent], None]) -> None:
        """Report who serves which layers, this node included, until cancelled."""
        reporter = CoverageReporter(self.model, self._local.manifest, record, trio.current_time)
        while True:
            stages = self._directory.stages(trio.current_time())
            signed = self._announcement()
            if signed is not None:
                own = KnownStage(
                    peer=signed.peer,
                    stage=signed.open(),
                    signed=signed,
                    made_s=trio.current_time(),
                )
                stages = [own, *stages]
            reporter.report(stages)
            await trio.sleep(LOOK_S)

    def _announcement(self) -> SignedAnnouncement | None:
        info, server = self._info, self._server
        if info is None or server is None:
            return None
        now_s = trio.current_time()
        if self._announced is None or now_s - self._announced[0] >= ANNOUNCE_S:
            stage = StageAnnouncement(
                model=self.model,
                serial=self._next_serial(),
                name=self._settings.name,
                layers=info.layers,
                kernel=info.kernel,
                layer_tokens_per_s=info.layer_tokens_per_s,
                cache_tokens_free=server.cache_tokens_free,
            )
            self._announced = (now_s, announce_stage(stage, self._receipts.signer))
        return self._announced[1]

    def _registered(self) -> tuple[Network, StageServer, StageExchange]:
        if self._network is None or self._server is None or self._exchange is None:
            raise OurFault("the inference service was used before its protocols were registered")
        return self._network, self._server, self._exchange


def _serving(name: str, model: Digest, info: StageInfo) -> str:
    return (
        f"Serving layers {info.layers} of {name} ({model.hex()[:SHOWN_DIGITS]}) on {info.device},"
        f" {info.layer_tokens_per_s / len(info.layers):.0f} tokens/s alone,"
        f" room for {info.cache_tokens} tokens."
    )
