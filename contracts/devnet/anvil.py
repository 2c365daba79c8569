"""Foundry's anvil in place of the embedded EVM: another program's Ethereum, from the same genesis.

It keeps nothing, and knows neither Plumise's `agent_*` nor a faucet.
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

# It listens within a second on an idle machine, after 31 s on one with ten programs to a core.
UP_S = 60.0
LOOK_S = 0.05
END_S = 5.0
TAIL_BYTES = 500
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def found_anvil() -> Path | None:
    """The program on this machine's PATH."""
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
    """Its URL, until the block ends. anvil ends with this process, however that ends.

    `port` 0: any. `block_s` 0: a block for each transaction.

    Raises `OSError` where it cannot be started or does not come up, with the end of what it said.
    """
    with tempfile.TemporaryDirectory(prefix="hypergpu-anvil-") as directory:
        file, log = Path(directory) / "genesis.json", Path(directory) / "log"
        file.write_text(json.dumps(genesis), encoding="utf-8")
        command = [program, "--init", file, "--host", host, "--hardfork", HARDFORK, "--quiet"]
        command += ["--block-time", f"{block_s:g}"] if block_s else []
        chosen = _free_port(host, port)
        # Looked up here: between fork and exec nothing may be loaded.
        dies_with_us = ctypes.CDLL(None).prctl
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*command, "--port", str(chosen)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                # SIGTERM: npm's package starts anvil through a script that hands this on and
                # nothing else.
                preexec_fn=lambda: dies_with_us(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0),  # noqa: PLW1509  # one system call, no lock
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
    """Raises `OSError` when it ends, or does not listen in time."""
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
    """It, or for 0 one that was free a moment ago: anvil says what the system gave it only among
    lines that `--quiet` leaves out.

    Raises `OSError` where it is taken: whoever has it would be taken for anvil.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        return int(probe.getsockname()[1])
