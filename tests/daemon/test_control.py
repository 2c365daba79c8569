"""Tests of the control socket, with the real server and client over real sockets."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.control import client as client_module
from daemon.control import server as server_module
from daemon.control.client import call
from daemon.control.server import Handler, serve_control
from daemon.control.wire import MAX_REQUEST_BYTES, ControlReply, socket_address
from daemon.home.layout import SOCKET_FILE
from daemon.home.lock import home_lock
from protocol.errors import UserError


class Daemon:
    """Handlers that record their calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.big = b'"' + b"x" * (1 << 20) + b'"'

    def handlers(self) -> dict[str, Handler]:
        async def status() -> bytes:
            self.calls.append("status")
            return b'{"as_of":1}'

        async def big() -> bytes:
            return self.big

        async def refuse() -> bytes:
            raise UserError("NO", "It cannot be done.", why="because", fix="wait", exit_code=6)

        async def hang() -> bytes:
            await trio.sleep_forever()
            return b""

        return {"status": status, "big": big, "refuse": refuse, "hang": hang}


@asynccontextmanager
async def served(home: Path) -> AsyncIterator[Daemon]:
    daemon = Daemon()
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_control, home, daemon.handlers())
        yield daemon
        nursery.cancel_scope.cancel()


async def asked(home: Path, name: str, timeout_s: float = 5.0) -> bytes:
    return await trio.to_thread.run_sync(partial(call, home, name, timeout_s=timeout_s))


def raw(home: Path, data: bytes, *, finish: bool = True) -> bytes:
    """Send arbitrary bytes, and return the server's answer."""
    with socket_address(home) as address, socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(address)
        answer = b""
        try:
            connection.sendall(data)
            if finish:
                connection.shutdown(socket.SHUT_WR)
            while chunk := connection.recv(65536):
                answer += chunk
        except (BrokenPipeError, ConnectionResetError):
            # The server stopped reading, so its answer may be lost.
            pass
        return answer


async def test_call_returns_the_answer_of_the_handler(tmp_path: Path) -> None:
    async with served(tmp_path) as daemon:
        assert await asked(tmp_path, "status") == b'{"as_of":1}'
        assert await asked(tmp_path, "big") == daemon.big
        assert stat.S_IMODE((tmp_path / "control.sock").stat().st_mode) == 0o600
    assert not (tmp_path / "control.sock").exists()


async def test_call_raises_the_whole_error_of_the_daemon(tmp_path: Path) -> None:
    async with served(tmp_path):
        with pytest.raises(UserError) as caught:
            await asked(tmp_path, "refuse")
        error = caught.value
        assert (error.code, error.what, error.why, error.fix, error.exit_code) == (
            "NO",
            "It cannot be done.",
            "because",
            "wait",
            6,
        )
        with pytest.raises(UserError, match="did you mean status"):
            await asked(tmp_path, "statsu")


@pytest.mark.parametrize("depth", [0, 1, 3])
async def test_call_works_in_homes_with_long_paths(tmp_path: Path, depth: int) -> None:
    home = tmp_path.joinpath(*["d" * 150] * depth)
    home.mkdir(parents=True, exist_ok=True)
    async with served(home):
        assert await asked(home, "status") == b'{"as_of":1}'


def test_call_without_a_daemon_exits_with_3(tmp_path: Path) -> None:
    for home in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError) as caught:
            call(home, "status")
        assert (caught.value.code, caught.value.exit_code) == ("NOT_RUNNING", 3)
        assert caught.value.fix == f"hypergpud start --home {home}"


def test_call_reports_a_daemon_that_does_not_listen_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "RETRY_S", 0.1)
    with home_lock(tmp_path), pytest.raises(UserError) as caught:
        call(tmp_path, "status")
    assert caught.value.code == "STARTING"
    assert str(os.getpid()) in caught.value.what


async def test_call_reports_a_daemon_that_does_not_answer(tmp_path: Path) -> None:
    async with served(tmp_path):
        with home_lock(tmp_path), pytest.raises(UserError) as caught:
            await asked(tmp_path, "hang", timeout_s=0.2)
    assert caught.value.code == "NOT_ANSWERING"
    assert f"kill {os.getpid()}" in caught.value.fix


async def test_the_server_replaces_a_stale_socket(tmp_path: Path) -> None:
    left = socket.socket(socket.AF_UNIX)
    with socket_address(tmp_path) as address:
        left.bind(address)
    left.close()
    with pytest.raises(UserError, match="NOT_RUNNING"):
        call(tmp_path, "status")
    async with served(tmp_path):
        assert await asked(tmp_path, "status")


@pytest.mark.parametrize("becomes", ["nothing", "a file", "another socket"])
async def test_the_server_restores_a_socket_that_was_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, becomes: str
) -> None:
    monkeypatch.setattr(server_module, "LOOK_S", 0.05)
    name = tmp_path / SOCKET_FILE
    left = socket.socket(socket.AF_UNIX)
    with home_lock(tmp_path):
        async with served(tmp_path):
            for _ in range(2):
                name.unlink()
                if becomes == "a file":
                    name.write_text("not a socket", encoding="ascii")
                elif becomes == "another socket" and left.fileno() >= 0:
                    with socket_address(tmp_path) as address:
                        left.bind(address)
                    left.close()
                assert await asked(tmp_path, "status") == b'{"as_of":1}'
        assert not name.exists()


async def test_the_server_waits_while_a_directory_has_the_name_of_its_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server_module, "LOOK_S", 0.05)
    with home_lock(tmp_path):
        async with served(tmp_path):
            (tmp_path / SOCKET_FILE).unlink()
            (tmp_path / SOCKET_FILE).mkdir()
            with trio.fail_after(20):
                while "cannot be made again yet" not in caplog.text:
                    await trio.sleep(0.01)
            (tmp_path / SOCKET_FILE).rmdir()
            assert await asked(tmp_path, "status") == b'{"as_of":1}'


async def test_the_server_does_not_remove_the_file_of_another_program(tmp_path: Path) -> None:
    name = tmp_path / SOCKET_FILE
    async with served(tmp_path):
        name.unlink()
        name.write_text("another program's", encoding="ascii")
    assert name.read_text(encoding="ascii") == "another program's"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"status\n",
        b"{}\n",
        b'{"call":1}\n',
        b'{"call":"status"}',
        b'{"call":"nothing"}\n',
        b"\x00\xff" * 50 + b"\n",
        b'{"call":"' + b"x" * MAX_REQUEST_BYTES + b'"}\n',
        b"[" * 4000 + b"\n",
    ],
)
async def test_the_server_refuses_garbage(tmp_path: Path, data: bytes) -> None:
    async with served(tmp_path) as daemon:
        answer = await trio.to_thread.run_sync(raw, tmp_path, data)
        assert not msgspec.json.decode(answer, type=ControlReply).ok
        assert daemon.calls == []
        assert await asked(tmp_path, "status") == b'{"as_of":1}'


async def test_the_server_survives_a_megabyte_without_a_line_end(tmp_path: Path) -> None:
    async with served(tmp_path):
        await trio.to_thread.run_sync(raw, tmp_path, os.urandom(1 << 20).replace(b"\n", b" "))
        assert await asked(tmp_path, "status") == b'{"as_of":1}'


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.binary(max_size=200))
def test_the_server_calls_no_handler_for_random_bytes(tmp_path: Path, data: bytes) -> None:
    async def main() -> None:
        with trio.fail_after(20):
            async with served(tmp_path) as daemon:
                await trio.to_thread.run_sync(raw, tmp_path, data)
                assert daemon.calls == []

    trio.run(main)


async def test_silent_clients_do_not_block_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "SERVER_TIMEOUT_S", 0.2)
    async with served(tmp_path):
        silent: list[socket.socket] = []
        with socket_address(tmp_path) as address:
            for _ in range(server_module.MAX_CONNECTIONS + 8):
                connection = socket.socket(socket.AF_UNIX)
                connection.connect(address)
                silent.append(connection)
        assert await asked(tmp_path, "status") == b'{"as_of":1}'
        for connection in silent:
            connection.close()


async def test_the_answer_to_stop_arrives_before_the_server_ends(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:

        async def stop() -> bytes:
            nursery.cancel_scope.cancel()
            return b'"bye"'

        await nursery.start(serve_control, tmp_path, {"stop": stop})
        with trio.CancelScope(shield=True):
            assert await asked(tmp_path, "stop") == b'"bye"'
