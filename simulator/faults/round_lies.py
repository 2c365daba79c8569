"""The lies of members of a round of rules 4: censoring leaders, copies that differ, and silence."""

from __future__ import annotations

import msgspec

from daemon.swarm.frames import LENGTH_BYTES
from protocol.certificates.certificate import Certificate
from protocol.identity import PeerId
from protocol.messages.envelope import decode_signed, decode_vote, open_signed, sign
from protocol.messages.offer import Ready
from simulator.faults.liar import Liar
from simulator.faults.trust_lies import TrustLiar


class CensorVoters(TrustLiar):
    """As leader, plans with its accomplices and as few other voters as make a quorum."""

    unnoticed = "a leader says whose offers have arrived; the next leader plans with the others"

    def excludes(self, peer: PeerId) -> str:
        tip = self.situation.tip()
        if tip is None or tip.record is None or peer not in tip.record.voters:
            return ""
        voters = tip.record.voters
        evil = {one.peer for one in self.situation.accomplices()} & {*voters}
        others = [voter for voter in voters if voter not in evil]
        spared = others[: max(0, len(voters) // 2 + 1 - len(evil))]
        return "" if peer in evil or peer in spared else "its leader wants no other voter"


class DifferentCopies(TrustLiar):
    """Spreads each certificate with another quorum of its votes, and of its accomplices' votes."""

    unnoticed = "each copy is a valid certificate: the outcome's digest names all of them"

    def gossip(self, topic: str, data: bytes) -> list[bytes]:
        if not topic.endswith("certificates"):
            return [data]
        certificate = msgspec.msgpack.decode(data, type=Certificate)
        tip = self.situation.tip()
        voters = tip.record.voters if tip is not None and tip.record is not None else ()
        quorum = max(self.manifest.group.min_peers, len(voters) // 2 + 1)
        votes = dict(certificate.votes)
        if not all(peer in voters for peer in votes):
            return [data]
        vote = decode_vote(certificate.outcome)
        for one in self.situation.accomplices():
            if one.peer in voters:
                votes[one.peer] = sign(one, self.run, vote).signature
        if len(votes) <= quorum:
            return [data]
        kept = tuple(sorted(self.rng.sample(sorted(votes.items()), quorum)))
        return [msgspec.msgpack.encode(msgspec.structs.replace(certificate, votes=kept))]


class SilentAfterOffer(TrustLiar):
    """Offers, and then sends nothing more of the round: no work, no sums, no votes."""

    unnoticed = "it looks like a node that died: the leader goes on without it"

    def message(self, to: PeerId, data: bytes) -> list[bytes]:
        signed = decode_signed(data[LENGTH_BYTES:])
        offers = isinstance(open_signed(signed, self.run, trusted=True), Ready)
        return [data] if offers or signed.peer != self.signer.peer else []

    def parcel(self, to: PeerId, header: bytes, payload: bytes) -> list[tuple[bytes, bytes]]:
        return []


ROUND_LIES: dict[str, type[Liar]] = {
    "censor_voters": CensorVoters,
    "different_copies": DifferentCopies,
    "silent_after_offer": SilentAfterOffer,
}
