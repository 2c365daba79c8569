"""Tests which libraries each real process loads, by `sys.modules`.

libp2p and hivemind cannot share a process. torch belongs to the worker, aiohttp to the observer.
`hypergpud status` has 0.3 s from the start of its process to its answer.
"""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from daemon.control.wire import ControlReply, socket_address
from protocol.status import Status, StatusState, status_at

REPOSITORY = Path(__file__).parents[2]
WATCHED = (
    "aiohttp",
    "asyncio",
    "blake3",
    "click",
    "cryptography",
    "eth_account",
    "eth",
    "hivemind",
    "libp2p",
    "multiaddr",
    "numpy",
    "prometheus_client",
    "rich",
    "safetensors",
    "sklearn",
    "torch",
    "trio",
    "web3",
)
HEAVY = frozenset(WATCHED) - {"click"}
STATUS_LIMIT_S, HELP_LIMIT_S = 0.3, 0.15
# CPU seconds of `python -c pass`, on the machine for which the limits were chosen.
BARE_S = 0.02

pytestmark = pytest.mark.real


def loaded_by(code: str, *arguments: str) -> frozenset[str]:
    """Run `code` in a new process, and return the libraries of WATCHED that it loaded."""
    tail = f"\nimport sys; print('LOADED', *sorted(set(sys.modules) & set({WATCHED!r})))"
    environ = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", code + tail, *arguments],
        capture_output=True,
        text=True,
        env=environ,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return frozenset(done.stdout.rpartition("LOADED")[2].split())


@contextmanager
def answering(home: Path) -> Iterator[None]:
    """Answer every call on the control socket with an empty status, without the real server."""
    status: Status = status_at(StatusState(), 1.0)
    answer = (
        msgspec.json.encode(ControlReply(ok=True, result=msgspec.Raw(msgspec.json.encode(status))))
        + b"\n"
    )
    listener = socket.socket(socket.AF_UNIX)
    with socket_address(home) as address:
        listener.bind(address)
    listener.listen()

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                if connection.recv(4096) == b'{"call":"leave"}\n':
                    return
                connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        with socket_address(home) as address, socket.socket(socket.AF_UNIX) as last:
            last.connect(address)
            last.sendall(b'{"call":"leave"}\n')
        thread.join()
        listener.close()


@pytest.mark.parametrize(
    "arguments", [("status",), ("status", "--json"), ("peers",), ("peers", "--json")]
)
def test_status_and_peers_load_no_heavy_library(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    with answering(tmp_path):
        code = "import sys; from daemon.cli.main import run; assert run(sys.argv[1:]) == 0"
        assert loaded_by(code, "--home", str(tmp_path), *arguments) & HEAVY == frozenset()


def test_the_command_line_loads_only_click() -> None:
    assert loaded_by("import daemon.cli.main") == {"click"}


def test_help_loads_no_command() -> None:
    """`--help` needs only the command table; each imported command would slow it down."""
    code = "import sys; from daemon.cli.main import run; assert run(['--help']) == 0; "
    code += "from daemon.cli.command_table import all_commands; "
    code += "print('COMMANDS', [one.name for one in all_commands() if one.module in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        timeout=60,
        check=True,
    )
    assert done.stdout.rpartition("COMMANDS ")[2].strip() == "[]"
    assert loaded_by("from daemon.cli.main import run; assert run(['--help']) == 0") == {"click"}


def cpu_seconds(*command: str) -> float:
    """Return the CPU seconds of a process, the least of six runs."""
    environ = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    took: list[float] = []
    for _ in range(6):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, *command],
            env=environ,
            check=True,
            timeout=60,
            stdout=subprocess.DEVNULL,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(took)


def is_within(limit_s: float, *arguments: str) -> bool:
    """Return whether a command stays within its limit, scaled by the speed of this core."""
    slowness = max(1.0, cpu_seconds("-c", "pass") / BARE_S)
    return cpu_seconds("-m", "daemon.cli.main", *arguments) < limit_s * slowness


@pytest.mark.alone
@pytest.mark.parametrize("arguments", [("status",), ("status", "--json"), ("peers",)])
def test_status_answers_within_its_limit(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    with answering(tmp_path):
        assert is_within(STATUS_LIMIT_S, "--home", str(tmp_path), *arguments)


@pytest.mark.alone
@pytest.mark.parametrize("arguments", [("--help",), ("-h",), ("--version",)])
def test_help_is_printed_within_its_limit(arguments: tuple[str, ...]) -> None:
    assert is_within(HELP_LIMIT_S, *arguments)


def test_the_node_loads_no_torch_no_hivemind_and_no_web_server() -> None:
    """It loads prometheus_client, which libp2p imports."""
    loaded = loaded_by("import daemon.cli.commands.start, daemon.node.app")
    assert {"libp2p", "trio", "numpy"} <= loaded
    assert (
        loaded
        & {"torch", "hivemind", "aiohttp", "sklearn", "web3", "eth_account", "rich", "pygments"}
        == set()
    )


def test_the_worker_loads_no_network() -> None:
    loaded = loaded_by("import daemon.device.main")
    assert loaded & {"libp2p", "multiaddr", "hivemind", "trio", "aiohttp", "click"} == set()


def test_the_observers_web_side_loads_no_torch_and_no_libp2p() -> None:
    loaded = loaded_by("import daemon.observer.server, daemon.observer.http_server")
    assert loaded & {"torch", "hivemind", "libp2p", "sklearn"} == set()


def test_the_import_for_task_authors_loads_no_torch() -> None:
    assert loaded_by("import hypergpu") & {"torch", "libp2p", "trio", "sklearn"} == set()


def test_the_hivemind_process_loads_no_libp2p_and_no_trio() -> None:
    """hivemind and libp2p cannot be imported into one process."""
    package = "daemon.services.training.hivemind"
    loaded = loaded_by(f"import {package}.main, {package}.command_loop")
    assert {"hivemind", "torch"} <= loaded
    assert loaded & {"libp2p", "multiaddr", "trio", "aiohttp", "click"} == set()


def test_the_hivemind_process_is_guarded_before_it_imports_hivemind() -> None:
    assert (
        loaded_by("import daemon.services.training.hivemind.main") & {"hivemind", "torch", "trio"}
        == set()
    )
