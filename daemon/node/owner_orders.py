"""Orders of the run's owner: a node obeys them, and an observer shows them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from daemon.journal import Journal
from daemon.node.control_commands import NodeControl
from daemon.node.node_parts import NodeParts
from protocol.journal import OwnerOrdered
from protocol.membership.owner_record import OwnerRecords
from protocol.messages.membership import TrainingOrder

# Between two looks at the records.
LOOK_S = 0.5
# An order that arrives this soon after the start was given before it, since a node asks its first
# neighbours at once. A node that starts in a stopped run waits, where a running node leaves.
KNOWN_S = 10.0

Obey = Callable[[TrainingOrder], Awaitable[None]]


async def watch_orders(records: OwnerRecords, journal: Journal, obey: Obey) -> None:
    """Record each order that counts, and obey it, until cancelled."""
    serial = 0
    while True:
        order = records.order
        if order is not None and order.serial != serial:
            serial = order.serial
            journal.record(OwnerOrdered(serial=order.serial, action=order.action))
            await obey(order)
        await trio.sleep(LOOK_S)


async def show(_order: TrainingOrder) -> None:
    """Do nothing: an observer trains nothing."""


def node_obeys(node: NodeParts, control: NodeControl) -> Obey:
    """Return what a node does with an order from now on."""
    began = trio.current_time()

    async def obey(order: TrainingOrder) -> None:
        if order.action == "stop" and trio.current_time() - began > KNOWN_S:
            node.say("The run's owner stopped training on every node.")
            node.shutdown.request("the run's owner stopped training")
            return
        await control.obey(order.action)

    return obey
