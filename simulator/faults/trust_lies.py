"""The lies of runs of rules 4: keys that certify, and members that cheat with work and words."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from msgspec.structs import replace

from daemon.swarm.lineage import Lineage
from protocol.certificates.tip import Tip
from protocol.digest import digest
from protocol.errors import PeerFault
from protocol.identity import PeerId, Signer
from protocol.messages.beacon import Beacon
from protocol.messages.envelope import decode_signed, encode_signed, open_as, sign
from protocol.ports.trainer import Work
from protocol.rules.versions import RULES_4
from simulator.faults.forgery import Forgery, forge, leading_view, own_record
from simulator.faults.liar import Liar

# What a member may claim at most in the stories.
OVERCLAIM = 1_000_000
# The fresh keys that sign a forged certificate.
FRESH_KEYS = (2, 3, 10)
# The certificates that a flood holds after each beacon: 500 in 5 s, as two keys once earned 98.5%
# of an epoch's pay.
FLOOD = 100
# The certificates of a private branch.
BRANCH_LENGTH = 9
# Those of a branch that mints weight: a minute of work for two keys.
MINTED = 300


# How many certificates before they left the keys certify again.
OLD_CERTIFICATES = 3


class TrustLiar(Liar):
    """A lie that only runs of rules 4 withstand."""

    least_rules = RULES_4


class StrangersCertify(TrustLiar):
    """Certifies among fresh keys after each certificate, and claims the tip."""

    flood: ClassVar[int] = 1

    def spreads(self, topic: str) -> list[tuple[str, bytes]]:
        tip = self.situation.tip() if topic.endswith("beacons") else None
        if tip is None or tip.record is None:
            return []
        topic = topic.removesuffix("beacons") + "certificates"
        return [(topic, raw) for _ in range(self.flood) for raw in self._forged(tip)]

    def _forged(self, tip: Tip) -> list[bytes]:
        made = []
        for count in FRESH_KEYS:
            # Fewer keys than a certificate needs would not even look like one.
            enough = max(count, self.manifest.group.min_peers)
            signers = [Signer(self.rng.randbytes(32)) for _ in range(enough)]
            for record in (None, own_record(self.run, self.manifest, signers)):
                forgery = Forgery(state=self.rng.randbytes(32), samples=OVERCLAIM)
                chunks = self.situation.chunks
                made.append(forge(self.run, self.manifest, tip, signers, chunks, forgery, record))
        return made


class FloodCertificates(StrangersCertify):
    """Certifies hundreds of rounds a second among fresh keys."""

    flood = FLOOD // (2 * len(FRESH_KEYS))


class PrivateBranch(TrustLiar):
    """With its accomplices' votes, certifies a branch of its own after each certificate.

    The branch is valid, and has no quorum. Honest nodes follow it when they are patient, and they
    are not.
    """

    unnoticed = "a certificate of two voters is one: patience and standing decide about it"
    length: ClassVar[int] = BRANCH_LENGTH

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self._branched: set[bytes] = set()
        self._claimed: Tip | None = None

    def spreads(self, topic: str) -> list[tuple[str, bytes]]:
        tip = self.situation.tip() if topic.endswith("beacons") else None
        if tip is None or tip.hash in self._branched:
            return []
        self._branched.add(tip.hash)
        topic = topic.removesuffix("beacons") + "certificates"
        return [(topic, raw) for raw in self._branch(tip)]

    def _branch(self, tip: Tip) -> list[bytes]:
        """Certificates of the accomplices, each after the one before."""
        signers, lineage = self.situation.accomplices(), self.situation.lineage()
        made: list[bytes] = []
        first = signers[0].peer == self.signer.peer
        if not first or lineage is None or leading_view(self.run, tip, signers) is None:
            return made
        votes: tuple[tuple[PeerId, bytes], ...] = ()
        branch = Lineage(self.run, self.manifest, self.situation.chunks)
        for one in lineage.path(lineage.root, tip):
            branch.add(one.raw, trusted=True)
        for _ in range(self.length):
            forgery = Forgery(
                state=digest(tip.hash), samples=OVERCLAIM, step_norm=1e6, parent_votes=votes
            )
            raw = forge(self.run, self.manifest, tip, signers, self.situation.chunks, forgery)
            try:
                entry = branch.add(raw)[0]
            except (PeerFault, IndexError):
                break
            made.append(raw)
            tip, votes = entry.tip, entry.certificate.votes
        self._claimed = tip
        return made

    def gossip(self, topic: str, data: bytes) -> list[bytes]:
        if not topic.endswith("beacons") or self._claimed is None:
            return [data]
        beacon = open_as(Beacon, decode_signed(data), self.run, trusted=True)
        claimed = replace(beacon, number=self._claimed.number, tip=self._claimed.hash)
        return [encode_signed(sign(self.signer, self.run, claimed))]


class MintedBranch(PrivateBranch):
    """The same with hundreds of certificates, once."""

    length = MINTED

    def _branch(self, tip: Tip) -> list[bytes]:
        return super()._branch(tip) if self._claimed is None else []


class OldKeys(PrivateBranch):
    """Forges a branch from certificates of before its node left, with the keys of all that left."""

    unnoticed = "the keys had votes then: standing and the day of a held certificate decide"
    # How many certificates before the last one of all these keys the branch begins.
    before_leaving: ClassVar[int] = OLD_CERTIFICATES

    def _branch(self, tip: Tip) -> list[bytes]:
        lineage = self.situation.lineage()
        if lineage is None:
            return []
        peers = {one.peer for one in self.situation.accomplices()}
        path = lineage.path(lineage.root, tip)
        together = [one for one in path if peers <= {*one.plan.members}]
        if len(together) <= self.before_leaving:
            return []
        before = lineage.tip(together[-1 - self.before_leaving].hash)
        return super()._branch(before) if before is not None else []


class KeysSinceDeparture(OldKeys):
    """The same, from the very certificate after which its node and the others left.

    More voters stand on this branch than on the branch of those who stayed.
    """

    before_leaving = 0


class Slander(TrustLiar):
    """States against every other voter."""

    unnoticed = "a voter may say what it likes; the word of one decides nothing"

    def opinions(self) -> dict[PeerId, bool]:
        tip = self.situation.tip()
        voters = tip.record.voters if tip is not None and tip.record is not None else ()
        return {peer: False for peer in voters if peer != self.signer.peer}


class OverclaimedZeros(TrustLiar):
    """Hands over nothing, and claims a million samples for it."""

    unnoticed = "weights are bounded, and work audits name it after a few rounds"

    def work(self, work: Work) -> Work:
        work.delta[:] = 0
        return replace(work, samples=OVERCLAIM) if work.samples else work


class Overclaim(TrustLiar):
    """Claims a million samples for its work."""

    unnoticed = "weights are bounded by those of the others, of earlier rounds and of both branches"

    def work(self, work: Work) -> Work:
        return replace(work, samples=OVERCLAIM) if work.samples else work


class Noise(TrustLiar):
    """Hands over noise of a norm of a million."""

    unnoticed = "the clip bounds it, and work audits name it after a few rounds"

    def work(self, work: Work) -> Work:
        noise = np.random.default_rng(self.rng.getrandbits(32)).standard_normal(work.delta.size)
        work.delta[:] = (noise * (1e6 / max(1.0, float(np.linalg.norm(noise))))).astype(np.float32)
        return work


class Negated(TrustLiar):
    """Hands over its work with the sign flipped."""

    unnoticed = "the clip bounds it, and work audits name it after a few rounds"

    def work(self, work: Work) -> Work:
        work.delta[:] *= np.float32(-1.0)
        return work


TRUST_LIES: dict[str, type[Liar]] = {
    "strangers_certify": StrangersCertify,
    "flood_certificates": FloodCertificates,
    "private_branch": PrivateBranch,
    "minted_branch": MintedBranch,
    "old_keys": OldKeys,
    "keys_since_departure": KeysSinceDeparture,
    "slander": Slander,
    "overclaim": Overclaim,
    "overclaimed_zeros": OverclaimedZeros,
    "noise": Noise,
    "negated": Negated,
}
