"""Which certificates of a world a quorum signed, and who votes in the end (rules 4)."""

from __future__ import annotations

from collections import defaultdict

import msgspec

from protocol.averaging.replay import is_merge
from protocol.certificates.certificate import OpenCertificate
from protocol.certificates.tip import Tip
from protocol.journal import RoundCertified
from protocol.membership.certificate_check import is_full_certificate
from protocol.run.manifest import Manifest
from simulator.scenarios.story import VotesWanted
from simulator.world.simulated_node import SimulatedNode
from simulator.world.world import World


class Voting(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the votes in a world."""

    # The numbers of the certificates without a quorum in the longest ancestry, and of its merges.
    degraded: tuple[int, ...]
    merges: tuple[int, ...]
    # The voters after it.
    voters: int
    # The tips of the nodes that live.
    tips: int
    # The nodes that vote, and the most certificates of one number that honest nodes adopted.
    voting: frozenset[int] = frozenset()
    branches: int = 0


def voting_in(world: World) -> Voting:
    """Read the votes off the lineage of the node with the highest certificate."""
    manifest = world.manifest.open()
    living = [node for node in world.nodes if node.alive and node.state is not None]
    if not living:
        return Voting(degraded=(), merges=(), voters=0, tips=0)
    honest = [node for node in living if node.index not in world.invariants.liars]
    furthest = max(honest or living, key=lambda node: _tip(node).number)
    tip = _tip(furthest)
    assert furthest.engine is not None
    lineage = furthest.engine.peers.lineage
    path = lineage.path(lineage.root, tip)
    degraded = tuple(
        one.outcome.number
        for one in path
        if not is_merge(one) and not _is_full(lineage.tip(one.outcome.parents[0]), one, manifest)
    )
    return Voting(
        degraded=degraded,
        merges=tuple(one.outcome.number for one in path if is_merge(one)),
        voters=len(tip.record.voters) if tip.record is not None else 0,
        tips=len({_tip(node).hash for node in living if node.index not in world.invariants.liars}),
        voting=frozenset(
            node.index
            for node in world.nodes
            if tip.record is not None and node.peer in tip.record.voters
        ),
        branches=_most_branches(world),
    )


def _most_branches(world: World) -> int:
    """The most different certificates of one number that honest nodes adopted."""
    adopted: dict[int, set[str]] = defaultdict(set)
    for _, index, event in world.history:
        if (
            isinstance(event, RoundCertified)
            and event.state_digest
            and index not in world.invariants.liars
        ):
            adopted[event.number].add(event.certificate)
    return max(map(len, adopted.values()), default=0)


def _tip(node: SimulatedNode) -> Tip:
    state = node.state
    assert state is not None
    return state.tip


def _is_full(parent: Tip | None, certificate: OpenCertificate, manifest: Manifest) -> bool:
    if parent is None or parent.record is None:
        return True
    return is_full_certificate(certificate, parent.record, manifest)


def missed(world: World, wanted: VotesWanted) -> list[str]:
    """Say what a story wanted of its votes and did not get."""
    found = voting_in(world)
    missing: list[str] = []
    if wanted.voters is not None and found.voters != wanted.voters:
        missing.append(f"{found.voters} peers vote in the end; {wanted.voters} are wanted")
    missing += [f"node {node} has no vote in the end" for node in {*wanted.keep} - found.voting]
    missing += [f"node {node} votes in the end" for node in {*wanted.lose} & found.voting]
    if wanted.branches is not None and found.branches > wanted.branches:
        missing.append(
            f"{found.branches} certificates have one number; {wanted.branches} are allowed"
        )
    least, most = wanted.degraded
    if not least <= len(found.degraded) <= most:
        missing.append(
            f"{len(found.degraded)} certificates have no quorum; {least} to {most} are wanted"
        )
    if wanted.merges is not None and len(found.merges) != wanted.merges:
        missing.append(f"{len(found.merges)} merges were certified; {wanted.merges} are wanted")
    if wanted.tips is not None and found.tips > wanted.tips:
        missing.append(f"the nodes are at {found.tips} tips; {wanted.tips} are wanted")
    return missing
