"""The native engine's data plane alone: its lanes, codecs and sums between real networks.

Digests, inclusion, votes and outer step are left out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import trio

from daemon.network.network import LibP2PNetwork
from daemon.network.settings import NetworkSettings
from daemon.network.tls.certificate import load_or_make
from daemon.services.training.native.exchange.all_reduce import AllReduce
from daemon.services.training.native.exchange.buffers import Buffers
from daemon.services.training.native.exchange.bulk_headers import BulkHeader
from daemon.services.training.native.exchange.bulk_receiver import ExpectedParcel, serve_bulk
from daemon.services.training.native.exchange.bulk_sender import BulkSender
from daemon.services.training.native.exchange.data_plane import fingerprint_of
from daemon.services.training.native.exchange.exchange_context import (
    ExchangeContext,
    ExchangePorts,
)
from daemon.system.offload import in_abandonable_thread, in_thread
from protocol.averaging.group_layout import even_groups
from protocol.averaging.vector_layout import Vector, chunk_count, share_out
from protocol.codec import codec_named
from protocol.contribution.offer import Offer
from protocol.digest import EMPTY_ROOT, Buffer, Digest, Levels, digest
from protocol.identity import PeerId, Signer
from protocol.messages.base import Signed
from protocol.messages.offer import Ready
from protocol.messages.round import Inclusion, Plan
from protocol.planning.plan import OpenPlan
from protocol.ports.endpoint import Endpoint
from protocol.round.events import Event
from simulator.bench.allreduce.driver import AveragingFailure, CommandPipe, DriverSettings, serve

RUN = digest(b"hypergpu/bench/allreduce")
_NONE: Vector = np.empty(0, np.float32)
# The time for one round: at 10 Mbit/s, 40 MB take a minute.
TIMEOUT_S = 300.0


class NullCommitment:
    """A `Commitment` to nothing: it shows what averaging costs without proofs."""

    def proof(self, tree: Levels, first: int, stop: int) -> tuple[Digest, ...]:
        return ()

    def fits(
        self,
        data: Buffer,
        chunk_bytes: int,
        first: int,
        total: int,
        proof: Sequence[Digest],
        root: Digest,
    ) -> bool:
        return True

    def root(self, data: Buffer, chunk_bytes: int) -> Digest:
        return EMPTY_ROOT

    def leaves(self, data: Buffer, chunk_bytes: int) -> list[Digest]:
        return []

    def root_of(self, leaves: Sequence[Digest]) -> Digest:
        return EMPTY_ROOT


def secret_of(index: int) -> bytes:
    """A peer's key, for this benchmark only."""
    return digest(b"hypergpu/bench/key", index.to_bytes(2, "big"))


class NativeDriver:
    """The data plane in one peer."""

    def __init__(self, settings: DriverSettings, network: LibP2PNetwork) -> None:
        self._settings, self._network = settings, network
        self._signer = Signer(secret_of(settings.index))
        self._codec = codec_named(settings.codec)
        self._endpoints: dict[PeerId, Endpoint] = {}
        self._trouble = ""
        self.sender = BulkSender(network, self._find, self._refuse)
        self._exchange: AllReduce | None = None
        self._changed = trio.Event()
        self._mean: Vector = _NONE
        # Where a result is decoded. Nothing else writes to it.
        self._out: Vector = np.empty(settings.elements, np.float32)
        self.buffers, self._offers = Buffers(), Buffers()
        serve_bulk(network, self._accept, self._refuse, self.buffers)

    @property
    def kept_bytes(self) -> int:
        """The bytes that are kept for the next round, and those in use."""
        return self.buffers.size_bytes + self._offers.size_bytes

    def _find(self, peer: PeerId, fingerprint: Digest) -> Endpoint:
        return self._endpoints[peer]

    def _refuse(self, reason: str, peer: PeerId, detail: str) -> None:
        self._trouble = f"{reason}: {detail}"

    async def _accept(self, peer: PeerId, header: BulkHeader) -> ExpectedParcel:
        while self._exchange is None:
            await self._changed.wait()
        return await self._exchange.accept(peer, header)

    async def info(self) -> str:
        return msgspec.msgpack.encode(self._network.endpoint).hex()

    async def meet(self, infos: tuple[str, ...]) -> None:
        for info in infos:
            endpoint = msgspec.msgpack.decode(bytes.fromhex(info), type=Endpoint)
            self._endpoints[endpoint.peer] = endpoint
            self._network.admit(endpoint)

    async def prepare(self, number: int, vector: Vector) -> None:
        if self._exchange is not None:
            self._exchange.close()
        self._vector, self._exchange, self._number = vector, None, number
        self._mean = _NONE  # Its memory may be reused.
        self._out[:] = np.nan
        self.sender.clear(failed=False)
        self._offers.next_round()

    def _plan(self) -> OpenPlan:
        peers = tuple(sorted(self._endpoints))
        ready = [
            Ready(
                parent=RUN,
                view=self._number,
                number=1,
                seq=1,
                samples=1,
                contribution=EMPTY_ROOT,
                loss=None,
                fingerprint=fingerprint_of(self._endpoints[peer]),
                uplink_bps=0,
                downlink_bps=0,
            )
            for peer in peers
        ]
        rows = even_groups(len(peers), self._settings.max_group)
        borders = share_out(chunk_count(self._settings.elements), [1.0] * len(rows[-1]))
        signed = tuple(Signed(b"", peer, b"") for peer in peers)
        plan = Plan(
            parent=RUN,
            view=self._number,
            number=1,
            offers=signed,
            borders=borders,
            groups=rows,
            reason="",
        )
        name = digest(RUN, self._number.to_bytes(8, "big"))
        return OpenPlan(plan=plan, digest=name, leader=peers[0], members=peers, offers=tuple(ready))

    async def average(self) -> None:
        encoded = self._offers.acquire(self._codec.size(self._settings.elements))
        await in_thread(lambda: self._codec.encode_into(self._vector, 1.0, encoded))
        plan = self._plan()
        exchange = AllReduce(
            plan,
            Offer(seq=1, weight=1, encoded=encoded),
            ExchangeContext(
                run=RUN,
                signer=self._signer,
                codec=self._codec,
                parameters=self._settings.elements,
            ),
            ExchangePorts(
                sender=self.sender,
                buffers=self.buffers,
                offload=in_thread,
                emit=_nothing,
                commitment=NullCommitment(),
            ),
        )
        self._exchange = exchange
        self._changed.set()
        self._changed = trio.Event()
        everybody = tuple(range(len(plan.members)))
        cut = Inclusion(
            plan=plan.digest,
            number=1,
            contributors=everybody,
            present=everybody,
            owners=everybody,
            reason="",
        )
        exchange.scatter()
        with trio.move_on_after(TIMEOUT_S):
            await exchange.average(cut, digest(plan.digest))
            results, elements = exchange.results(), self._settings.elements
            there = results.vector(0, elements)
            self._mean = (
                there if there is not None else await in_thread(lambda: results.mean(0, self._out))
            )
            return
        raise AveragingFailure(self._trouble or f"not within {TIMEOUT_S:.0f} s")

    async def result(self) -> Vector:
        return self._mean


def _nothing(event: Event) -> None:
    """Ignore an event: there is no round machine here."""


async def live(pipe: CommandPipe, settings: DriverSettings) -> None:
    with tempfile.TemporaryDirectory(prefix="hypergpu-bench-") as folder:
        certificate = load_or_make(Path(folder) / "bulk.pem", f"peer {settings.index}")
        given = NetworkSettings(listen_host=settings.host, min_connections=0)
        network = LibP2PNetwork(given, secret_of(settings.index), certificate)
        driver = NativeDriver(settings, network)
        async with network.running(), trio.open_nursery() as nursery:
            await nursery.start(driver.sender.run)
            await serve(
                pipe,
                settings,
                driver,
                partial(in_abandonable_thread, pipe.next),
            )
            nursery.cancel_scope.cancel()


def run(pipe: CommandPipe, settings: DriverSettings) -> None:
    trio.run(live, pipe, settings)
