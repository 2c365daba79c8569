"""One run of the network: starts every part in order on its listeners, and stops them all.

Everything that needs a socket lives between the entry and the exit of `running_network()`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from functools import partial

import trio

from daemon.network.addresses import primary_hosts
from daemon.network.libp2p.host import Host
from daemon.network.libp2p.library_settings import number_own_records_from
from daemon.network.libp2p.service_manager import run_service
from daemon.network.listeners import Listeners
from daemon.network.own_addresses import OwnAddresses
from daemon.network.peers.exchange import PEERS_PROTOCOL
from daemon.network.peers.lan_discovery import LanDiscovery
from daemon.network.peers.own_record import OwnRecord
from daemon.network.peers.services import PeerServices
from daemon.network.permanent_parts import PermanentParts
from daemon.network.running_parts import RunningParts
from daemon.network.traversal.context import OwnPorts, TraversalContext
from daemon.network.traversal.messages import TRAVERSAL_PROTOCOL, Purpose
from daemon.network.traversal.services import TraversalServices
from daemon.system.trio_types import TaskStatus
from protocol.network.reachability import PathKind


@asynccontextmanager
async def running_network(permanent: PermanentParts, listeners: Listeners) -> AsyncIterator[None]:
    """Listen and join inside the block, and close `listeners` at its end."""
    given = permanent.settings
    number_own_records_from(given.serials())
    host = Host(
        permanent.secret,
        listeners.addresses,
        permanent.refusals,
        permanent.running.serve_preamble,
        permanent.priority.matters,
    )
    traversal = _traversal(permanent, host, listeners)
    published = [one for one in listeners.addresses if one.kind in given.published_kinds]
    own = OwnRecord(permanent.signer, published, given.serials, given.on_key_observed)
    peers = PeerServices(
        host,
        permanent.dht,
        permanent.connections,
        permanent.book,
        own,
        permanent.refusals,
        permanent.control.open_stream,
        traversal.connector,
        permanent.unreachable,
        min_connections=given.min_connections,
    )
    handlers = {
        **permanent.control.handlers,
        PEERS_PROTOCOL: peers.exchange.serve,
        TRAVERSAL_PROTOCOL: traversal.serve,
    }
    for protocol, handler in handlers.items():
        host.serve(protocol, permanent.server.acceptor(handler))
    host.swarm.register_notifee(permanent.connections)
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(_run, permanent), host, peers, traversal, listeners)
        try:
            yield
        finally:
            nursery.cancel_scope.cancel()


async def _run(
    permanent: PermanentParts,
    host: Host,
    peers: PeerServices,
    traversal: TraversalServices,
    listeners: Listeners,
    task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run everything until cancelled, in the order in which the parts need each other."""
    bulk = listeners.bulk
    async with listeners.control, bulk or nullcontext(), run_service(host.swarm):
        await host.swarm.event_background_nursery_created.wait()
        async with (
            permanent.gossip.running(host.basic, permanent.settings.serials()),
            permanent.dht.running(host.basic),
            trio.open_nursery() as nursery,
            permanent.paths.listening(bulk),
        ):
            own = OwnAddresses(permanent.settings, listeners, host, peers, traversal.monitor.renew)
            permanent.running.parts = RunningParts(
                host=host, peers=peers, own=own, traversal=traversal, nursery=nursery
            )
            permanent.server.nursery = nursery
            nursery.start_soon(permanent.closer.run)
            if listeners.shared is not None:
                nursery.start_soon(listeners.shared.run)
            nursery.start_soon(host.listen, listeners.control)
            await nursery.start(traversal.run)
            nursery.start_soon(peers.manager.run)
            nursery.start_soon(permanent.entries.run)
            if permanent.settings.mdns:
                nursery.start_soon(_lan(permanent, listeners).run)
            nursery.start_soon(own.run)
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                permanent.running.parts = permanent.server.nursery = None
                with trio.CancelScope(shield=True):
                    for connection in permanent.connections.connections():
                        await connection.cut("this node is leaving")


def _traversal(permanent: PermanentParts, host: Host, listeners: Listeners) -> TraversalServices:
    async def accept(purpose: Purpose, stream: trio.SocketStream, kind: PathKind) -> None:
        if purpose == "bulk":
            await permanent.bulk_server.serve_connection(stream, kind)
        else:
            await host.inbound.serve(stream, kind)

    context = TraversalContext(
        connections=permanent.connections,
        open_stream=permanent.control.open_connected,
        accept=accept,
        expected=permanent.expected,
        refusals=permanent.refusals,
        matters=permanent.priority.matters,
        is_in_run=lambda peer: permanent.book.provides(peer, permanent.dht.provided),
        reach_of=permanent.admitted.reach_of,
    )
    ports = OwnPorts(control=listeners.port, bulk=listeners.bulk_port)
    hosts = tuple(address.host for address in listeners.addresses)

    def own_hosts() -> tuple[str, ...]:
        return (*primary_hosts(), *hosts)

    advertised = listeners.addresses if permanent.settings.advertise else ()
    return TraversalServices(context, ports, own_hosts, permanent.settings.relay, advertised)


def _lan(permanent: PermanentParts, listeners: Listeners) -> LanDiscovery:
    wanted = frozenset({permanent.settings.wanted_run} - {b""})
    return LanDiscovery(
        permanent.peer,
        listeners.port,
        lambda: permanent.dht.provided | wanted,
        permanent.entries.learn_from_lan,
        announces=permanent.settings.bulk,
    )
