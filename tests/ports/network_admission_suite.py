"""Who may connect to the bulk plane."""

from __future__ import annotations

import msgspec
import pytest
import trio

from protocol.errors import Unreachable
from tests.ports.network_kit import (
    ECHO,
    TIMEOUT_S,
    Handlers,
    SwarmFactory,
    another_certificate,
    ask,
    eventually,
    must_fail,
)


class NetworkAdmissionSuite:
    """Part of `NetworkSuite`."""

    async def test_bulk_accepts_only_admitted_peers(self, make_swarm: SwarmFactory) -> None:
        handlers = Handlers()
        with trio.fail_after(TIMEOUT_S):
            async with make_swarm(3, handlers.prepare) as swarm:
                friend, stranger, server = swarm.networks
                server.admit(friend.endpoint)
                await must_fail(lambda: stranger.open_bulk(server.endpoint, ECHO))
                await eventually(lambda: server.refusals().get("tls", 0) >= 1)
                stream = await friend.open_bulk(server.endpoint, ECHO)
                assert await ask(stream, b"in") == b"in"
                await stream.aclose()
                assert {came for _, came in handlers.came} == {friend.peer}

    async def test_admission_needs_the_exact_last_certificate(
        self, make_swarm: SwarmFactory
    ) -> None:
        handlers = Handlers()
        with trio.fail_after(TIMEOUT_S):
            async with make_swarm(2, handlers.prepare) as swarm:
                client, server = swarm.networks
                server.admit(client.endpoint)
                server.admit(another_certificate(client.endpoint))
                await must_fail(lambda: client.open_bulk(server.endpoint, ECHO))
                server.admit(client.endpoint)
                stream = await client.open_bulk(server.endpoint, ECHO)
                assert await ask(stream, b"in") == b"in"
                await stream.aclose()

    async def test_bulk_server_must_show_the_known_certificate(
        self, make_swarm: SwarmFactory
    ) -> None:
        handlers = Handlers()
        with trio.fail_after(TIMEOUT_S):
            async with make_swarm(3, handlers.prepare) as swarm:
                client, server, other = swarm.networks
                server.admit(client.endpoint)
                impostor = msgspec.structs.replace(
                    server.endpoint, certificate=other.endpoint.certificate
                )
                await must_fail(lambda: client.open_bulk(impostor, ECHO))
                await eventually(
                    lambda: (
                        server.refusals().get("tls", 0) + server.refusals().get("handshake", 0) >= 1
                    )
                )
                assert handlers.came == []

    async def test_bulk_to_a_closed_port_is_unreachable(self, make_swarm: SwarmFactory) -> None:
        handlers = Handlers()
        with trio.fail_after(TIMEOUT_S):
            async with make_swarm(2, handlers.prepare) as swarm:
                nowhere = msgspec.structs.replace(
                    swarm.networks[1].endpoint, hosts=("127.0.0.1",), port=1
                )
                with pytest.raises(Unreachable):
                    await swarm.networks[0].open_bulk(nowhere, ECHO)
