"""The report of one run of a world, and how it is read off the history."""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import median

import msgspec

from protocol.journal import InputRefused, PeerDown, PeerForgotten, PhaseEntered, RoundCertified
from simulator.faults import fault as f
from simulator.world.fault_scheduler import StruckFault
from simulator.world.world import World

CRASH_FAULTS = (f.Kill,)
# After these faults the next certificate is a recovery.
BREAKING_FAULTS = (f.Kill, f.PowerCut, f.LeaveFault, f.Partition, f.Pause, f.Sever)


class StoryReport(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one run.

    Seconds are virtual.

    `goodput` is samples included / samples computed. `goodput_bound` is what would be possible when
    the dying nodes lose their unfinished round. `detection_seconds` is the longest time from a
    crash until everybody connected to the dead node knew. `recovery_seconds` is the longest time
    from a fault to the next certificate, and `recovery_exchange_seconds` the same without training.
    `exchange_seconds` is the median exchange before the first fault, from the offer to the next
    training.
    """

    scenario: str
    seed: int
    nodes: int
    rounds_certified: int
    goodput: float | None
    detection_seconds: float | None
    recovery_seconds: float | None
    invariants: dict[str, bool]
    ok: bool
    reason: str
    goodput_bound: float | None = None
    recovery_exchange_seconds: float | None = None
    exchange_seconds: float | None = None
    bytes_sent: int = 0
    faults: int = 0
    # Why nothing was promised after the last fault.
    excuse: str = ""
    refused: dict[str, int] = {}
    unnoticed: int = 0
    virtual_seconds: float = 0.0
    real_seconds: float = 0.0
    # CPU time of the process in this run.
    cpu_seconds: float = 0.0
    # Peak memory of the process so far.
    peak_memory_bytes: int = 0
    # When each certificate first existed, for the plot.
    progress: tuple[tuple[float, int], ...] = ()
    # How many nodes were alive from each time on, for the plot.
    alive: tuple[tuple[float, int], ...] = ()


def rounds(world: World) -> int:
    """The number of certificates in the longest ancestry."""
    return max((world.number(node.index) for node in world.nodes), default=0)


def first_certificates(world: World) -> list[tuple[float, int, int]]:
    """(when, number, node) of each certificate with a higher number than all before."""
    found: list[tuple[float, int, int]] = []
    best = 0
    for at, node, event in world.history:
        if isinstance(event, RoundCertified) and event.state_digest and event.number > best:
            best = event.number
            found.append((at, best, node))
    return found


def longest_round_s(world: World) -> float:
    """The longest time between two successive certificates, at the first node to hold each."""
    times = [at for at, _, _ in first_certificates(world)]
    return max((later - earlier for earlier, later in pairwise(times)), default=math.inf)


def goodput(world: World) -> tuple[float | None, float | None]:
    """(samples included / samples computed, the bound of that share).

    The bound assumes that only what dying nodes had not handed over was lost. Work that is pending
    at live nodes does not count as computed: it comes in a later round.
    """
    collected = world.collected_before + sum(
        node.trainer.collected for node in world.nodes if node.trainer is not None
    )
    stores = [
        node.engine.state_store
        for node in world.nodes
        if node.engine is not None and node.engine.state_store is not None
    ]
    pending = sum(
        node.engine.state_store.ledger.pending
        for node in world.nodes
        if node.alive and node.engine and node.engine.state_store
    )
    if not stores:
        return None, None
    best = max(stores, key=lambda store: (store.tip.samples, store.tip.hash))
    computed = collected + world.lost_samples - pending
    if computed <= 0:
        return None, None
    return min(1.0, best.tip.samples / computed), 1.0 - (
        world.lost_samples + world.unfinished_samples
    ) / computed


def detection_s(world: World, struck: list[StruckFault]) -> float | None:
    """The longest time from a crash until the last connected node knew of it."""
    downs: dict[str, list[tuple[float, int]]] = {}
    for at, node, event in world.history:
        if isinstance(event, PeerDown | PeerForgotten):
            downs.setdefault(event.peer, []).append((at, node))
    deaths = [(blow.at_s, blow.node) for blow in struck if isinstance(blow.fault, CRASH_FAULTS)]
    longest: float | None = None
    for blow in struck:
        if not isinstance(blow.fault, CRASH_FAULTS):
            continue
        noticed: dict[int, float] = {}
        for at, node in downs.get(world.nodes[blow.node].peer, ()):
            if at >= blow.at_s and node in blow.connected:
                noticed.setdefault(node, at - blow.at_s)
        alive = [
            node
            for node in noticed
            if not any(
                who == node and blow.at_s <= at <= blow.at_s + noticed[node] for at, who in deaths
            )
        ]
        longest = max(longest or 0.0, *(noticed[node] for node in alive)) if alive else longest
    return longest


def recovery_s(world: World, struck: list[StruckFault]) -> tuple[float | None, float | None]:
    """(the longest time from a fault to the next certificate, the same without training).

    The training time is that of the certificate's first holder.
    """
    firsts = first_certificates(world)
    longest: float | None = None
    exchange: float | None = None
    for blow in struck:
        if not isinstance(blow.fault, BREAKING_FAULTS):
            continue
        following = next(((at, node) for at, _, node in firsts if at > blow.at_s), None)
        if following is None:
            continue
        at, node = following
        longest = max(longest or 0.0, at - blow.at_s)
        exchange = max(
            exchange or 0.0, at - blow.at_s - _trained_between(world, node, blow.at_s, at)
        )
    return longest, exchange


def exchange_s(world: World, struck: list[StruckFault]) -> float | None:
    """The median exchange of counted nodes before the first fault; None when nobody was counted."""
    first = min((blow.at_s for blow in struck), default=math.inf)
    took = [
        sum(seconds for phase, seconds in event.phase_seconds.items() if phase != "train")
        for at, _, event in world.history
        if at < first
        and isinstance(event, RoundCertified)
        and event.outcome == "counted"
        and event.phase_seconds
    ]
    return median(took) if took else None


def _trained_between(world: World, node: int, start: float, stop: float) -> float:
    trained, since = 0.0, None
    for at, index, event in world.history:
        if index != node or not isinstance(event, PhaseEntered):
            continue
        if since is not None:
            trained += max(0.0, min(at, stop) - max(since, start))
            since = None
        if at > stop:
            return trained
        if event.phase == "train":
            since = at
    return trained


def refused(world: World) -> dict[str, int]:
    """Refusals of all nodes, by reason."""
    counts: dict[str, int] = {}
    for _, _, event in world.history:
        if isinstance(event, InputRefused):
            counts[event.reason] = counts.get(event.reason, 0) + event.count
    return dict(sorted(counts.items()))


def bytes_sent(world: World) -> int:
    """Bytes that all nodes sent in their last lives, on both planes."""
    traffic = [node.network.traffic() for node in world.nodes if node.network is not None]
    return sum(one.control_sent + one.bulk_sent for one in traffic)
