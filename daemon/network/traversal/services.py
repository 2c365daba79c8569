"""The parts that get around routers, put together for one run of a node."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import trio

from daemon.network.addresses import PeerAddress
from daemon.network.traversal.connector import Connector
from daemon.network.traversal.context import OwnPorts, TraversalContext
from daemon.network.traversal.observation import answer_observation
from daemon.network.traversal.preamble import Preamble
from daemon.network.traversal.reachability import ReachabilityMonitor
from daemon.network.traversal.relay import RelayService, RelaySettings
from daemon.network.traversal.signalling import Signalling
from daemon.system.trio_types import TaskStatus
from protocol.ports.byte_stream import ByteStream


class TraversalServices:
    """Calls others around routers, and helps others to do so."""

    def __init__(
        self,
        context: TraversalContext,
        ports: OwnPorts,
        own_hosts: Callable[[], tuple[str, ...]],
        settings: RelaySettings,
        advertised: tuple[PeerAddress, ...],
    ) -> None:
        """
        Args:
            own_hosts: Gives the hosts of this machine and those that the user configured.
            advertised: What the user configured.
        """
        self.monitor = monitor = ReachabilityMonitor(context, ports, own_hosts, advertised)
        self.connector = Connector(context, ports, lambda: monitor.reach)
        self.relay = RelayService(context, settings, ports)
        self._signalling = Signalling(context, ports, self.relay, self.monitor)
        self._context = context

    async def serve(self, stream: ByteStream) -> None:
        """Answer one request of a connected peer."""
        await self._signalling.serve(stream)

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.relay.run)
            await nursery.start(self._signalling.run)
            nursery.start_soon(self.monitor.run)
            task_status.started()

    async def serve_preamble(self, preamble: Preamble, stream: trio.SocketStream) -> None:
        """Serve a connection that began with a preamble. The caller closes its socket."""
        match preamble.kind:
            case "observe":
                await answer_observation(stream)
            case "probe":
                if self.monitor.expects(preamble.token):
                    # Whoever called and went away learns nothing, and we lose nothing.
                    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                        await stream.send_all(preamble.token)
            case "call" | "leg":
                if not self._context.expected.give(preamble.token, stream):
                    self._context.refusals.count("stale", "a connection that nobody expects")
