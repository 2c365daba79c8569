"""The end of the lineage that certificates form: the tip.

`next_tip.py` has the rules by which a certificate leads from one tip to the next.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec.structs import replace

from protocol.contribution.lane_reserve import FIRST_RESERVE
from protocol.digest import Digest, digest
from protocol.identity import PeerId
from protocol.membership.record import MembershipRecord, genesis_record
from protocol.messages.base import UNREADABLE
from protocol.planning.group_size_history import GroupSizeHistory
from protocol.ports.trainer import Lane
from protocol.rules.versions import RULES_4
from protocol.run.manifest import Manifest

# Spare lanes of the data order for nodes that the parent certificate does not list.
NEWCOMER_LANES = 8


class Tip(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a lineage: all that a check of the next certificate needs."""

    hash: Digest
    number: int
    # Candidates for leading, in ascending order; empty at genesis.
    members: tuple[PeerId, ...]
    last_seq: Mapping[PeerId, int]
    samples: int
    # The digest of anchor and momentum; empty at genesis, whose state follows from the manifest.
    state: Digest
    # The position at which the next round's data begins.
    lane_base: int
    # The first samples of each lane, which members draw during the round's exchange.
    reserve: int = 0
    # What the last plan leaves for the next one.
    layout: GroupSizeHistory | None = None
    # Seconds of the next round, as the last plan left them (`protocol/planning/round_length.py`);
    # None at genesis, and where all rounds of the run have one length.
    round_s: float | None = None
    # Who votes on the next certificate; None in runs of rules 2 and 3.
    record: MembershipRecord | None = None
    # What the votes for this certificate sign; empty at genesis, and in runs of rules 2 and 3.
    outcome: bytes = b""

    def lane(self, peer: PeerId) -> Lane:
        """The samples that `peer` draws in the round after this tip, until its offer.

        Each member has a lane. Newcomers share a few lanes by hash.
        """
        whole = self._whole_lane(peer)
        return replace(whole, base=whole.base + self.reserve * whole.stride)

    def reserve_lane(self, peer: PeerId) -> Lane:
        """The samples that `peer` draws during the exchange of the round after this tip.

        A member whose exchange lasts longer begins its own reserve again. A run that does not train
        during the exchange has no reserve.
        """
        return replace(self._whole_lane(peer), limit=self.reserve)

    @property
    def behind_reserve(self) -> int:
        """The position behind everything that is reserved for the exchange."""
        return self.lane_base + self.reserve * self.stride

    @property
    def stride(self) -> int:
        """The distance between two samples of a lane, in positions."""
        return len(self.members) + NEWCOMER_LANES

    def _whole_lane(self, peer: PeerId) -> Lane:
        count = len(self.members)
        if peer in self.members:
            index = self.members.index(peer)
        else:
            index = (
                count + int.from_bytes(digest(self.hash, peer.encode())[:4], "big") % NEWCOMER_LANES
            )
        return Lane(base=self.lane_base, index=index, stride=self.stride)


def encode_tip(tip: Tip) -> bytes:
    """Encode a tip for this node's own disk, beside the state that it names."""
    return msgspec.msgpack.encode(tip)


def decode_tip(data: bytes) -> Tip | None:
    """Decode a tip from this node's own disk.

    Returns:
        None where another release wrote no tip, or a tip of another kind.
    """
    try:
        return msgspec.msgpack.decode(data, type=Tip) if data else None
    except UNREADABLE:
        return None


def genesis_of(run: Digest, manifest: Manifest) -> Tip:
    """The parent of a run's first round, with the founders as voters in runs of rules 4."""
    record = genesis_record(run, manifest) if manifest.rules >= RULES_4 else None
    return replace(genesis(run, overlap=manifest.round.overlaps), record=record)


def genesis(run: Digest, *, overlap: bool = True) -> Tip:
    """The parent of the first round: its hash is the run id.

    `overlap` says whether the run's members train during the exchange.
    """
    return Tip(
        hash=run,
        number=0,
        members=(),
        last_seq={},
        samples=0,
        state=b"",
        lane_base=0,
        reserve=FIRST_RESERVE if overlap else 0,
    )


def prefer(a: Tip, b: Tip) -> Tip:
    """The preferred one of two tips on different branches.

    It has more certified samples; with as many, the smaller hash.
    """
    return max(a, b, key=lambda tip: (tip.samples, bytes(255 - byte for byte in tip.hash)))
