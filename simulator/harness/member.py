"""One real member of a swarm under test.

Usage: `python -m simulator.harness.member --home DIR --index N --elements N --manifest FILE`

Network, bulk plane, disk and engine are those of `hypergpud start`. Only the trainer is fake
(`content`), so that its contributions can be recognized. The member prints what happens as JSON
lines (`wire`), reads commands on its standard input, and dies when that closes.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec
import trio

from daemon.disk.file_disk import FileDisk
from daemon.home.layout import BULK_CERTIFICATE_FILE
from daemon.home.node_key import load_or_make_key
from daemon.logs import set_up_logging
from daemon.network.network import LibP2PNetwork
from daemon.network.settings import NetworkSettings
from daemon.network.tls.certificate import load_or_make
from daemon.node.discovery import announce
from daemon.services.training.native.engine import NativeEngine
from daemon.services.training.native.engine_context import NodePorts, engine_context
from daemon.system.offload import in_thread
from protocol.journal import Warned
from protocol.run.manifest import SignedManifest
from simulator.harness.content import ContentTrainer
from simulator.harness.member_agent import MemberAgent
from simulator.harness.wire import MemberUp, StretchCollected

PR_SET_PDEATHSIG = 1  # prctl(2)


async def live(settings: argparse.Namespace, output: int) -> None:
    """Run a member until its standard input closes."""
    home: Path = settings.home
    signed = msgspec.msgpack.decode(settings.manifest.read_bytes(), type=SignedManifest)
    seed = signed.open().seed
    signer, secret = load_or_make_key(home)
    network = LibP2PNetwork(
        NetworkSettings(
            listen_host=settings.listen,
            listen_port=settings.port,
            bulk_port=settings.bulk_port,
            join=settings.join,
            advertise=settings.advertise,
        ),
        secret,
        load_or_make(home / BULK_CERTIFICATE_FILE, home.name),
    )
    member = MemberAgent(output)
    trainer = ContentTrainer(
        seed=seed,
        member=settings.index,
        life=settings.life,
        elements=settings.elements,
        report=lambda stretch, samples: member.say(
            StretchCollected, life=settings.life, stretch=stretch, samples=samples
        ),
    )
    member.engine = NativeEngine(
        context=engine_context(signed, signer),
        ports=NodePorts(
            network=network,
            disk=FileDisk(
                home,
                in_thread,
                report=lambda words: member.record(Warned(code="DAMAGED", message=words)),
            ),
            offload=in_thread,
            record=member.record,
        ),
        trainer=trainer,
        name=home.name,
        serial=time.time_ns,
        on_event=member.observe,
    )
    async with network.running(), trio.open_nursery() as nursery:
        nursery.start_soon(member.obey, 0)
        nursery.start_soon(member.strike_late)
        member.say(MemberUp, peer=network.peer, address=network.addresses[0])
        nursery.start_soon(announce, network, signed)
        await member.engine.run()


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m simulator.harness.member", description=__doc__)
    parser.add_argument(
        "--home", type=Path, required=True, help="existing directory for key, state and log"
    )
    parser.add_argument(
        "--manifest", type=Path, required=True, help="file with the sealed manifest"
    )
    parser.add_argument(
        "--index",
        type=int,
        required=True,
        help="the member's number, which determines its contributions",
    )
    parser.add_argument(
        "--life",
        type=int,
        default=0,
        help="how often the member was started before, so that no stretch repeats",
    )
    parser.add_argument("--elements", type=int, required=True)
    parser.add_argument("--join", action="append", default=[], metavar="MULTIADDR")
    parser.add_argument("--listen", default="127.0.0.1")
    parser.add_argument(
        "--advertise",
        action="append",
        default=[],
        metavar="HOST",
        help="where others reach the member, if not at --listen",
    )
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--bulk-port", type=int, default=0)
    settings = parser.parse_args(arguments)
    settings.join, settings.advertise = tuple(settings.join), tuple(settings.advertise)
    # A stopped process does not notice that its standard input closed. So the kernel must end it
    # with its parent.
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)
    output = os.dup(1)
    # The output of libraries must not mix with the JSON lines.
    os.dup2(2, 1)
    set_up_logging(file=settings.home / "member.log")
    trio.run(partial(live, settings, output))


if __name__ == "__main__":
    main(sys.argv[1:])
