"""Runs Foundry's anvil instead of the embedded EVM: another Ethereum, from the same genesis.

anvil keeps nothing, has no faucet, and does not know Plumise's `agent_*` calls.
"""

from __future__ import annotations

import ctypes
import json
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contracts.devnet.genesis import HARDFORK

# anvil listens within a second on an idle machine, and after 31 s with ten programs to a core.
UP_S = 60.0
LOOK_S = 0.05
END_S = 5.0
TAIL_BYTES = 500
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def found_anvil() -> Path | None:
    """Find the program on this machine's PATH."""
    found = shutil.which("anvil")
    return None if found is None else Path(found)


@contextmanager
def anvil_serving(
    program: Path,
    genesis: dict[str, Any],
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    block_s: float = 0,
) -> Iterator[str]:
    """Run anvil until the block ends, and yield its URL.

    anvil ends with this process, even if this process is killed. Port 0 means any free port. With
    `block_s` 0, each transaction gets a block. Raises `OSError` with the end of anvil's output if
    anvil does not start.
    """
    with tempfile.TemporaryDirectory(prefix="hypergpu-anvil-") as directory:
        file, log = Path(directory) / "genesis.json", Path(directory) / "log"
        file.write_text(json.dumps(genesis), encoding="utf-8")
        command = [
            str(program),
            "--init",
            str(file),
            "--host",
            host,
            "--hardfork",
            HARDFORK,
            "--quiet",
        ]
        command += ["--block-time", f"{block_s:g}"] if block_s else []
        chosen = _free_port(host, port)
        # Looked up here, since nothing may be loaded between fork and exec.
        dies_with_us = ctypes.CDLL(None).prctl
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*command, "--port", str(chosen)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                # npm's package starts anvil through a script, which passes on SIGTERM only.
                # The function makes one system call and takes no lock.
                preexec_fn=lambda: dies_with_us(  # noqa: PLW1509
                    _PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0
                ),
            )
        try:
            _wait_for(process, host, chosen, log)
            yield f"http://{host}:{chosen}"
        finally:
            process.terminate()
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for(process: subprocess.Popen[bytes], host: str, port: int, log: Path) -> None:
    """Wait until anvil listens. Raises `OSError` if it ends or is too slow."""
    deadline = time.monotonic() + UP_S
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex((host, port)) == 0 and process.poll() is None:
                return
        time.sleep(LOOK_S)
    how = "does not listen" if process.poll() is None else f"ended with exit code {process.poll()}"
    raise OSError(
        f"anvil {how}: {log.read_bytes()[-TAIL_BYTES:].decode('utf-8', 'replace').strip()}"
    )


def _free_port(host: str, port: int) -> int:
    """Return `port`, or for 0 a port that was free a moment ago.

    anvil prints the port that the system gave it only without `--quiet`. Raises `OSError` if the
    port is in use: the program that uses it would be mistaken for anvil.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        return int(probe.getsockname()[1])
