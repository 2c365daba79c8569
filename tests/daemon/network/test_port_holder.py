"""A port that another program has: the program is named, and the change is reported."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from daemon.network.network import LibP2PNetwork
from daemon.network.port_holder import port_holder
from daemon.network.settings import NetworkSettings
from daemon.network.tls.certificate import load_or_make
from protocol.errors import UserError


def listening() -> socket.socket:
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    return taken


def test_port_holder_names_the_program() -> None:
    with listening() as taken:
        assert port_holder(taken.getsockname()[1]).startswith(f"process {os.getpid()} (")
        free = taken.getsockname()[1]
    assert port_holder(free) == ""


async def test_lost_port_is_the_usual_port_while_another_program_has_it(
    tmp_path: Path,
) -> None:
    certificate = load_or_make(tmp_path / "bulk.pem", "n")
    with listening() as taken:
        port = taken.getsockname()[1]
        network = LibP2PNetwork(
            NetworkSettings(listen_host="127.0.0.1", usual_port=port), bytes(32), certificate
        )
        async with network.running():
            assert network.lost_port == port
            assert network.port not in (0, port)
        named = LibP2PNetwork(
            NetworkSettings(listen_host="127.0.0.1", listen_port=port), bytes(32), certificate
        )
        with pytest.raises(UserError) as caught:
            async with named.running():
                raise AssertionError("it listens on a port that another program has")
        assert (caught.value.code, f"process {os.getpid()}" in caught.value.why) == ("PORT", True)
    free = LibP2PNetwork(
        NetworkSettings(listen_host="127.0.0.1", usual_port=port), bytes(32), certificate
    )
    async with free.running():
        assert (free.lost_port, free.port) == (0, port)
