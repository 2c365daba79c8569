"""Moving to the next anchor: adopting what was computed here, or downloading what the others computed; then writing it down.

The spare buffers hold the new state before it counts. Becoming the anchor, settling the ledger and setting the trainer to work happen with the
training lock held, so that no offer is made half from the old anchor and half from the new one.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from daemon.engines.native.keeper import Keeper
from daemon.engines.native.logbook import Logbook
from daemon.engines.native.training import Training
from daemon.swarm.chain_sync import pack_record
from daemon.swarm.follower import Follower
from daemon.swarm.lineage import Lineage, Step
from daemon.swarm.members import Members
from daemon.swarm.messenger import Refuse
from daemon.swarm.state_transfer import Download
from protocol.certificate import OpenCertificate, Tip
from protocol.digest import Digest, merkle_root
from protocol.errors import PeerFault, Unreachable
from protocol.identity import PeerId, short
from protocol.journal import CaughtUp, Event, Warned
from protocol.merge import merge_parents
from protocol.ports import Network, Offload, Vector
from protocol.round.phases import Adopted, FetchFailed

Credits = list[tuple[int, Vector]]
"""What encoding lost of the slices summed here: (first element, W x (mean - decoded))."""


class Moving:
    """One node's way along its lineage."""

    def __init__(
        self,
        *,
        me: PeerId,
        network: Network,
        lineage: Lineage,
        members: Members,
        follower: Follower,
        keeper: Keeper,
        training: Training,
        offload: Offload,
        logbook: Logbook,
        leaves: dict[Digest, list[Digest]],
        record: Callable[[Event], None],
        refuse: Refuse,
    ) -> None:
        """`leaves` is what downloaders are served from: the leaves of the last few states, by tip."""
        self.adopted_at = trio.current_time()
        self.unwritten: list[tuple[int, bytes]] = []  # records of the lineage that are not on disk yet, by number
        self._me, self._network, self._lineage, self._members, self._follower = me, network, lineage, members, follower
        self._keeper, self._training, self._offload, self._logbook = keeper, training, offload, logbook
        self._leaves, self._record, self._refuse = leaves, record, refuse
        self._fetching = trio.CancelScope()
        self._writing = trio.Lock()
        self._share_leaves(keeper.tip)

    async def adopt(self, certificate: OpenCertificate, credits: Credits) -> Adopted:
        """The certificate names the state in the spare buffers."""
        made = self._step_of(certificate)
        async with self._training.lock:
            return await self._move(made.tip, credits, 0.0)

    async def fetch(self, certificate: OpenCertificate) -> Adopted | FetchFailed | None:
        """Download the state the certificate names and move there. None when a later call took over."""
        made = self._step_of(certificate)
        self._fetching.cancel()
        with trio.CancelScope() as self._fetching:
            async with self._training.lock:
                began = trio.current_time()
                source, said = await self._download(certificate, made)
                if source is None:
                    return FetchFailed(reason=said)
                with trio.CancelScope(shield=True):  # the spare buffers are the anchor from here on: nothing may come between
                    now = trio.current_time()
                    size_bytes = 8 * self._keeper.anchor.parameters
                    self._record(CaughtUp(number=made.tip.number, source=source, size_bytes=size_bytes, seconds=now - began))
                    age, heard = self._follower.ages.get(certificate.hash, (0.0, began))
                    return await self._move(made.tip, [], age + now - heard)
        return None

    def _step_of(self, certificate: OpenCertificate) -> Step:
        made = self._lineage.step(certificate.hash)
        assert made is not None, "the machine moves only to certificates of the lineage"
        return made

    async def _download(self, certificate: OpenCertificate, made: Step) -> tuple[PeerId | None, str]:
        """The state into the spare buffers. Returns who completed it, or None and why nobody did."""
        anchor = self._keeper.anchor
        reasons: list[str] = []
        async with anchor.written:
            download = Download(certificate.hash, made.tip.state, anchor.spare_value, anchor.spare_momentum)
            holders = self._members.holders_of(certificate.hash)
            for peer in dict.fromkeys((*holders, *(voter for voter in certificate.voters if voter != self._me))):
                try:
                    await download.from_peer(self._network, peer)
                except Unreachable as error:
                    reasons.append(f"{short(peer)}: {error}")
                except PeerFault as fault:
                    self._refuse(fault.reason, peer, str(fault))
                    reasons.append(f"{short(peer)}: {fault}")
                if download.done and await anchor.digest_spare(self._offload) == made.tip.state:
                    return peer, ""
        because = "; ".join(reasons) or "no peer that holds it is known"
        return None, f"nobody gave the anchor of certificate {certificate.outcome.number}: {because}"

    async def merge(self, other: Tip) -> Digest | str | None:
        """Average the other branch's state with ours into the spare buffers.

        Returns the digest of the result, why it could not be computed, or None when a later call took over.
        """
        made = self._lineage.step(other.hash)
        if made is None:
            return f"certificate {other.number} of the other branch is not known any more"
        self._fetching.cancel()
        with trio.CancelScope() as self._fetching:
            async with self._training.lock:
                began = trio.current_time()
                source, said = await self._download(made.certificate, made)
                if source is None:
                    return said
                size_bytes = 8 * self._keeper.anchor.parameters
                self._record(CaughtUp(number=other.number, source=source, size_bytes=size_bytes, seconds=trio.current_time() - began))
                ours = self._keeper.tip
                first = merge_parents(ours.hash, other.hash)[0] == ours.hash
                pair = (ours, other) if first else (other, ours)
                return await self._keeper.anchor.average_spare(self._lineage.weights(*pair), ours_first=first, offload=self._offload)
        return None

    async def _move(self, tip: Tip, credits: Credits, age_s: float) -> Adopted:
        keeper = self._keeper
        path = self._lineage.path(keeper.tip, tip)
        if not self._lineage.descends(tip, keeper.tip):
            where = tip.number - len(path)
            self._record(Warned(code="FORK", message=f"following another branch from certificate {where} on: more was certified there"))
        await self._training.gather_loose()
        had_offer = keeper.ledger.pending > 0
        await keeper.move_to(tip, path, credits)
        self._share_leaves(tip)
        self.unwritten.extend(_records(path))
        self.adopted_at = trio.current_time() - age_s
        steps = [made for certificate in path if (made := self._lineage.step(certificate.hash)) is not None]
        self._logbook.adopted(steps, merkle_root(keeper.anchor.leaves[tip.hash]).hex(), had_offer)
        await self._training.from_local()
        return Adopted(tip=tip, age_s=age_s)

    def _share_leaves(self, tip: Tip) -> None:
        kept = self._keeper.anchor.leaves
        self._leaves[tip.hash] = kept[tip.hash]
        for gone in [name for name in self._leaves if name not in kept]:
            del self._leaves[gone]

    async def write(self) -> None:
        """Certificates, ledger and checkpoint to disk."""
        async with self._writing:
            records, self.unwritten = self.unwritten, []
            self.unwritten[:0] = await self._keeper.write(records, trio.current_time)


def _records(path: list[OpenCertificate]) -> list[tuple[int, bytes]]:
    """One record for each certificate of a straight way; a merge's record carries the other branch before it."""
    records: list[tuple[int, bytes]] = []
    waiting: list[bytes] = []
    meets = any(len(certificate.outcome.parents) == 2 for certificate in path)
    for certificate in path:
        waiting.append(certificate.raw)
        if not meets or len(certificate.outcome.parents) == 2:
            records.append((certificate.outcome.number, pack_record(waiting)))
            waiting, meets = [], meets and any(len(c.outcome.parents) == 2 for c in path[path.index(certificate) + 1 :])
    return records
