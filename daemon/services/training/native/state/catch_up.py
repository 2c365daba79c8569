"""Brings a node from its anchor to a later certificate by the means in between.

The means come from this node's memory or disk, or from members. Each is checked against its
certificate, and so is each state that it leads to. The node trains on from its own anchor
meanwhile.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

import trio

from daemon.services.training.native.state.state_store import StateStore
from daemon.swarm.messenger import Refuse
from daemon.swarm.multi_peer_download import download_from
from daemon.swarm.result_transfer import MeanDownload
from protocol.averaging.encoded_mean import EncodedMean
from protocol.averaging.replay import replay
from protocol.averaging.vector_layout import Vector
from protocol.certificates.certificate import OpenCertificate
from protocol.digest import Digest, merkle_root
from protocol.errors import PeerFault
from protocol.identity import PeerId
from protocol.ports.network import Network
from protocol.ports.offload import Offload
from protocol.rules.registry import rules_of
from protocol.run.manifest import Manifest
from protocol.run.schedule import outer_at

# The means under way or waiting to be replayed. With one, the link is idle while it is replayed.
MEANS_AHEAD = 3
# A peer answers at once whether it holds a mean. A second question would cost the time in which the
# full state begins to arrive.
ATTEMPTS = 1

Holders = Callable[[OpenCertificate], Sequence[PeerId]]


class CatchUp:
    """One node's way to one certificate. Once it ran, it holds a state like a `StateDownload`."""

    # Whether certificates since an older state were replayed to make this one.
    replayed = True

    def __init__(
        self,
        *,
        network: Network,
        manifest: Manifest,
        state_store: StateStore,
        path: Sequence[OpenCertificate],
        holders: Holders,
        offload: Offload,
        refuse: Refuse,
        on_bytes: Callable[[], None],
    ) -> None:
        """`path` leads from the node's tip to the certificate, without a merge."""
        self.tip: Digest = path[-1].hash
        self.received_bytes = 0
        # Verified bytes by the peer that gave them.
        self.given: Counter[PeerId] = Counter()
        self.advanced_at = self._began_at = trio.current_time()
        # The last certificate whose state `value` and `momentum` are.
        self.reached: OpenCertificate | None = None
        self.leaves: list[Digest] | None = None
        anchor = state_store.anchor
        self.value: Vector = anchor.value[:0]
        self.momentum: Vector = anchor.momentum[:0]
        self._anchor, self._results = anchor, state_store.results
        self._lineage = state_store.lineage
        self._network, self._manifest, self._path = network, manifest, path
        self._holders, self._offload, self._refuse = holders, offload, refuse
        self._on_bytes = on_bytes
        self._done = 0
        self._begun = False
        self._ahead = trio.Semaphore(MEANS_AHEAD)

    @property
    def begun(self) -> bool:
        """Whether verified bytes arrived."""
        return self._begun

    def eta_s(self) -> float:
        """Seconds until the last state is complete, at the rate so far."""
        if not self._done:
            return math.inf
        passed = trio.current_time() - self._began_at
        return passed / self._done * (len(self._path) - self._done)

    async def run(self) -> str:
        """Fetch and replay the means in order.

        Returns:
            Why it ended before the last certificate; empty when it is complete. `reached` may be a
            certificate on the way.
        """
        async with self._anchor.written:
            state = (self._anchor.value, self._anchor.momentum)
            self.value, self.momentum = await self._offload(
                lambda: (state[0].copy(), state[1].copy())
            )
        failure = ""
        async with trio.open_nursery() as nursery:
            send, receive = trio.open_memory_channel[_Slot](math.inf)
            nursery.start_soon(self._fetch_all, send, nursery)
            async for slot in receive:
                await slot.ready.wait()
                failure = slot.failure or await self._replay(slot)
                if failure:
                    break
                self._ahead.release()
            nursery.cancel_scope.cancel()
        return failure

    async def _fetch_all(self, send: trio.MemorySendChannel[_Slot], nursery: trio.Nursery) -> None:
        async with send:
            for certificate in self._path:
                await self._ahead.acquire()
                slot = _Slot(certificate)
                send.send_nowait(slot)
                nursery.start_soon(self._fetch, slot)

    async def _fetch(self, slot: _Slot) -> None:
        certificate = slot.certificate
        slot.mean = await self._results.mean_of(certificate)
        if slot.mean is None:
            download = MeanDownload(
                certificate.hash,
                certificate.outcome.result,
                self._results.pieces(certificate),
                self._results.size_bytes(certificate),
                self._advanced,
            )
            slot.failure = await download_from(
                self._network,
                download,
                lambda: self._holders(certificate),
                self._refuse,
                ATTEMPTS,
            )
            self.given.update(download.given)
            self.received_bytes += download.received_bytes
            if not slot.failure:
                slot.mean = download.mean(self._results.codec(certificate))
        slot.ready.set()

    def _advanced(self) -> None:
        self._begun = True
        self.advanced_at = trio.current_time()
        self._on_bytes()

    async def _replay(self, slot: _Slot) -> str:
        certificate, mean = slot.certificate, slot.mean
        assert mean is not None, "a slot without a failure has a mean"
        number = certificate.outcome.number
        before = self._lineage.tip(certificate.outcome.parents[0])
        if before is None:
            return f"the lineage no longer has the parent of certificate {number}"

        def work() -> list[Digest]:
            return replay(
                (self.value, self.momentum),
                certificate,
                mean,
                rules=rules_of(self._manifest),
                outer=outer_at(self._manifest, before.samples),
            )

        try:
            leaves = await self._offload(work)
        except PeerFault as fault:
            self.reached = None
            return f"the mean of certificate {number} does not decode: {fault}"
        if merkle_root(leaves) != certificate.outcome.state:
            # The vectors are no certified state any more.
            self.reached = None
            return f"the mean of certificate {number} does not lead to its state"
        self._results.put(certificate.hash, mean)
        self.leaves, self.reached = leaves, certificate
        self._done += 1
        self._advanced()
        return ""


class _Slot:
    """The mean of one certificate on the way."""

    def __init__(self, certificate: OpenCertificate) -> None:
        self.certificate = certificate
        self.mean: EncodedMean | None = None
        self.failure = ""
        self.ready = trio.Event()
