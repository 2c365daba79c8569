"""Controls of a test cluster: deliver, withhold, inject faults, and heal."""

from __future__ import annotations

from collections.abc import Callable

from protocol.messages.base import Signed
from protocol.messages.envelope import open_signed
from protocol.round import events as e
from protocol.round.phase import Phase
from tests.protocol.round.cluster import Packet, TestCluster


def content_type(cluster: TestCluster, packet: Packet) -> type[object]:
    """The type of a packet's content, or of the message inside it."""
    content = packet.content
    return (
        type(open_signed(content, cluster.run_id, trusted=True))
        if isinstance(content, Signed)
        else type(content)
    )


def flow_withholding(cluster: TestCluster, wanted: Callable[[Packet], bool]) -> None:
    """Let everything happen except the delivery of the `wanted` packets, which are withheld."""
    while any(not wanted(packet) for packet in cluster.wire) or any(
        node.inbox or node.work for node in cluster.alive()
    ):
        cluster.withheld += [packet for packet in cluster.wire if wanted(packet)]
        cluster.wire = [packet for packet in cluster.wire if not wanted(packet)]
        cluster.flow(1)
    cluster.withheld, cluster.wire = cluster.withheld + cluster.wire, []


def make_offers(cluster: TestCluster) -> None:
    """End training on every node and make the offers."""
    for node in cluster.alive():
        if node.state.phase is Phase.TRAIN:
            node.see(
                e.DeadlinePassed() if node.state.deadline > cluster.now else e.TrainingFinished()
            )
    for node in cluster.alive():
        while node.work:
            node.finish()
            node.run()


def apply_fault(cluster: TestCluster, op: str, k: int) -> None:
    """Apply one operation of a random history; `k` chooses the node or the packet."""
    alive = cluster.alive()
    node = alive[k % len(alive)]
    if op == "flow":
        cluster.flow(k)
    elif op == "tick":
        cluster.pass_deadline(node)
    elif op == "beacon":
        node.lost = {other for other in node.lost if cluster.is_partitioned(other, node.me)}
        node.update_live()
        node.run()
    elif op == "part":
        other = alive[(k + 1 + k // len(alive)) % len(alive)]
        if other is not node:
            node.lose(other.me)
            node.run()
    elif op == "split":
        cluster.set_partition(
            frozenset(v.me for i, v in enumerate(cluster.nodes) if k >> i % 6 & 1)
        )
    elif op == "mend":
        cluster.set_partition(frozenset())
    elif op == "kill":
        if k < 10 and len(alive) > 2 and cluster.can_spare(node):
            node.alive = False
    elif op == "restart":
        if all(
            cluster.holds(tip.hash, node) or tip.hash in node.kept
            for tip in [node.state.tip, node.tip]
        ):
            cluster.restart(node)
    elif op == "finish":
        if node.work:
            node.finish()
            node.run()
    elif op == "fail":
        cluster.downloads_that_fail += 1
    elif op == "release":
        cluster.wire, cluster.withheld = cluster.wire + cluster.withheld, []
    elif op != "rest" and cluster.wire:
        packet = cluster.wire[k % len(cluster.wire)]
        if op != "double":
            cluster.wire.remove(packet)
        if op == "hold":
            cluster.withheld.append(packet)
        elif op != "lose":
            cluster.deliver(packet, run=op != "stuff")


def heal(cluster: TestCluster, rounds: int, ticks: int) -> int:
    """End all faults, and drive all nodes to one tip that is `rounds` further on.

    Returns:
        How many deadlines passed until then.
    """
    cluster.set_partition(frozenset())
    cluster.wire, cluster.withheld = cluster.wire + cluster.withheld, []
    goal = max(node.state.tip.number for node in cluster.alive()) + rounds
    for count in range(ticks):
        cluster.catch_up()
        cluster.flow()
        tips = {node.state.tip.hash: node.state.tip.number for node in cluster.alive()}
        if len(tips) == 1 and min(tips.values()) >= goal:
            return count
        cluster.pass_next_deadline()
    states = [
        (v.me[-4:], v.state.phase.value, v.state.tip.number, v.state.view, len(v.state.live))
        for v in cluster.alive()
    ]
    raise AssertionError(f"no certificate within {ticks} deadlines: {states}")
