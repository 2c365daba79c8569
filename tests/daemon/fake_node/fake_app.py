"""A fake training with a round every tenth of a second; settings, key, lock and journal are real.

The variable FAKE_NODE_FAULTS lists faults as words `kind:node name`: "crash" at the start, "die"
after three rounds, "differ" in the anchor, "idle" without a round. FAKE_NODE_PEERS is the number of
nodes that must run before any of them begins, as in a real swarm.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import msgspec
import trio

from daemon.config.settings import Config
from daemon.control.server import serve_control
from daemon.journal import Journal
from daemon.wallet.password import Password
from protocol.identity import Signer
from protocol.journal import Contributor, NodeStarted, RoundCertified, TrafficReport
from protocol.membership.invitation_token import Invitation
from protocol.run.manifest import SignedManifest

RUN = "cd" * 32
ROUND_S = 0.1


def run_node(
    config: Config,
    manifest: SignedManifest | None,
    signer: Signer,
    secret: bytes,
    journal: Journal,
    lifeline: int | None,
    say: Callable[[str], None],
    password: Password | None,
    invitation: Invitation | None,
) -> int:
    # No test gives this home a wallet.
    assert password is None
    assert invitation is None
    assert (manifest is None) == bool(config.network.join)
    assert len(secret) == 32
    trio.run(_node, config, signer, journal, lifeline, say)
    return 0


async def _node(
    config: Config,
    signer: Signer,
    journal: Journal,
    lifeline: int | None,
    say: Callable[[str], None],
) -> None:
    name = config.node.name
    if _wrong("crash", name):
        raise RuntimeError("it cannot start")
    async with trio.open_nursery() as nursery:

        async def status() -> bytes:
            return msgspec.json.encode(journal.status())

        async def stop() -> bytes:
            nursery.cancel_scope.cancel()
            return b"null"

        async def watch(end: int) -> None:
            await trio.lowlevel.wait_readable(end)
            nursery.cancel_scope.cancel()

        await nursery.start(serve_control, config.home, {"status": status, "stop": stop})
        address = f"/ip4/127.0.0.1/tcp/1/p2p/{signer.peer}"
        journal.record(
            NodeStarted(
                peer=signer.peer,
                name=name,
                role="node",
                version="0",
                addresses=(address,),
                run=RUN,
                run_name="fake",
                task="none",
                engine="native",
                min_peers=2,
            )
        )
        nursery.start_soon(journal.run)
        if lifeline is not None:
            nursery.start_soon(watch, lifeline)
        say(f"Ready: {address}")
        await _rounds(config, signer, journal)


async def _rounds(config: Config, signer: Signer, journal: Journal) -> None:
    name, number = config.node.name, 0
    if _wrong("idle", name):
        await trio.sleep_forever()
    while len(list(config.home.parent.glob("node-*/control.sock"))) < int(
        os.environ.get("FAKE_NODE_PEERS", "0")
    ):
        await trio.sleep(ROUND_S / 4)
    while True:
        await trio.sleep(ROUND_S)
        number += 1
        _checkpoint(config.home, number, 1.0 if _wrong("differ", name) else 0.0)
        loss = 1 / number
        journal.record(
            RoundCertified(
                number=number,
                view=0,
                certificate=f"{number:064x}",
                parent=f"{number - 1:064x}",
                members=(signer.peer,),
                shares=(Contributor(peer=signer.peer, samples=10, loss=loss),),
                samples=10,
                loss=loss,
                state_digest="",
                outcome="counted",
                phase_seconds={"train": ROUND_S},
                reason="fake",
            )
        )
        journal.record(
            TrafficReport(
                control_sent=1,
                control_received=0,
                bulk_sent=100 * number,
                bulk_received=0,
                connections=1,
            )
        )
        if number == 3 and _wrong("die", name):
            print("the sky fell on its head", flush=True)
            os._exit(9)


def run_observer(
    config: Config, join: tuple[str, ...], lifeline: int | None, say: Callable[[str], None]
) -> int:
    assert join
    assert lifeline is not None
    with socket.create_server((config.observer.host, config.observer.port)) as server:
        say(f"The page is at http://{config.observer.host}:{server.getsockname()[1]}/")
        os.read(lifeline, 1)
    return 0


def _wrong(kind: str, name: str) -> bool:
    return f"{kind}:{name}" in os.environ.get("FAKE_NODE_FAULTS", "").split()


def _checkpoint(home: Path, number: int, fill: float) -> None:
    anchor = struct.pack("<4f", number, fill, 2.0, 3.0)
    header = json.dumps(
        {"anchor": {"dtype": "F32", "shape": [4], "data_offsets": [0, len(anchor)]}}
    ).encode()
    folder = home / "runs" / RUN / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{number}-{'ab' * 32}.safetensors").write_bytes(
        struct.pack("<Q", len(header)) + header + anchor
    )
