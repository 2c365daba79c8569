"""Fresh keys certify among themselves beside a real run of rules 4, and nobody follows them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
import trio

from daemon.swarm.chain_sync import PROTOCOL as CHAIN
from daemon.swarm.chain_sync import ChainReply, ChainRequest, pack_record, read_chain
from daemon.swarm.frames import FrameReader, decode_as, frame
from daemon.swarm.lineage import Lineage
from daemon.swarm.state_transfer import PROTOCOL as STATE
from protocol.averaging.outer_step import state_digest
from protocol.averaging.vector_layout import chunk_count
from protocol.certificates.tip import Tip
from protocol.digest import Digest
from protocol.identity import Signer
from protocol.ports.byte_stream import ByteStream
from protocol.run.manifest import Manifest
from simulator.faults.forgery import Forgery, forge, name_of
from simulator.faults.forgery import own_record as founded_by_them
from tests.e2e.stranger import Stranger, stranger_at
from tests.e2e.swarm import ROUND_S, RUN, Daemon, Swarm

OPEN_RUN = (
    "rules = 4\n"
    + RUN
    + """
[admission]
policy = "open"
"""
)
# The shapes of a forged certificate: how many keys sign it, and what its anchor holds.
SHAPES = [(keys, value) for keys in (2, 3, 10) for value in (1234.5, 1e30, float("nan"))]
# Certificates of the daemons while the forgeries arrive.
ROUNDS = 3

pytestmark = pytest.mark.real


class Forger:
    """Makes certificates of fresh keys after a real tip, and serves them and their states."""

    def __init__(self, stranger: Stranger) -> None:
        self.records: list[tuple[int, bytes]] = []
        self.tip: tuple[Digest, int] = (stranger.run, 0)
        # How often somebody asked for a forged state.
        self.fetched = 0
        self.forged: set[Digest] = set()
        self._stranger = stranger
        stranger.network.serve(CHAIN, self._serve_chain)
        stranger.network.serve(STATE, self._serve_state)

    def forge(
        self,
        tip: Tip,
        manifest: Manifest,
        parameters: int,
        shape: tuple[int, float],
        *,
        own_record: bool,
    ) -> bytes:
        """Return a certificate after `tip` that fresh keys plan, lead and sign.

        With `own_record` they make themselves the founders of the record that they name.
        """
        run, (keys, value) = self._stranger.run, shape
        signers = [Signer(os.urandom(32)) for _ in range(keys)]
        anchor = np.full(parameters, value, np.float32)
        forgery = Forgery(
            state=state_digest(anchor, np.zeros_like(anchor)), samples=manifest.limits.max_samples
        )
        record = founded_by_them(run, manifest, signers) if own_record else None
        raw = forge(run, manifest, tip, signers, chunk_count(parameters), forgery, record)
        name, number = name_of(run, raw), tip.number + 1
        self.forged.add(name)
        self.tip = (name, number)
        self.records.append((number, pack_record([raw])))
        return raw

    async def _serve_chain(self, stream: ByteStream) -> None:
        request = decode_as(ChainRequest, await FrameReader(stream).expect_frame(256))
        records = [record for number, record in self.records if number >= request.first][-256:]
        reply = ChainReply(tip=self.tip[0], number=self.tip[1], age_s=0.0, count=len(records))
        await stream.send_all(frame(msgspec.msgpack.encode(reply)))
        for record in records:
            await stream.send_all(frame(record))
        await stream.send_eof()

    async def _serve_state(self, stream: ByteStream) -> None:
        asked = await FrameReader(stream).expect_frame(4096)
        self.fetched += any(name in asked for name in self.forged)
        await stream.send_eof()


async def tip_of(stranger: Stranger, manifest: Manifest) -> Tip:
    """Return the daemon's tip with its record, from its certificates."""
    lineage = Lineage(stranger.run, manifest)

    async def keep(raw: bytes) -> bool:
        lineage.add(raw)
        return True

    await read_chain(stranger.network, stranger.peer, stranger.run, 1, keep)
    return lineage.best


async def attack(first: Daemon, second: Daemon, root: Path) -> Forger:
    """Send forged certificates of every shape until the daemons made `ROUNDS` rounds."""
    status = await trio.to_thread.run_sync(first.now)
    before = status.run.number
    forgers: list[Forger] = []
    async with stranger_at(first, root, lambda one: forgers.append(Forger(one))) as stranger:
        manifest, (forger,) = await stranger.manifest(), forgers
        deadline = time.monotonic() + ROUNDS * ROUND_S
        sent = 0
        while (await trio.to_thread.run_sync(first.now)).run.number < before + ROUNDS:
            assert time.monotonic() < deadline, "the daemons certify no rounds beside the forger"
            tip = await tip_of(stranger, manifest)
            for shape in SHAPES:
                for own_record in (False, True):
                    raw = forger.forge(
                        tip, manifest, status.run.parameters, shape, own_record=own_record
                    )
                    await stranger.network.publish(stranger.certificates, raw)
                    name, number = forger.tip
                    beacon = stranger.beacon(tip=name, number=number)
                    await stranger.network.publish(stranger.beacons, stranger.signed(beacon))
                    sent += 1
            await trio.sleep(0.5)
        assert sent >= 2 * len(SHAPES)
        for daemon in (first, second):
            now = await trio.to_thread.run_sync(daemon.now)
            assert bytes.fromhex(now.run.tip) not in forger.forged
        assert await stranger.count("bad_certificate") > 0
        return forger


def test_keys_without_a_vote_take_over_no_open_run(tmp_path: Path) -> None:
    with Swarm(tmp_path, run=OPEN_RUN) as swarm:
        first = swarm.begin()
        second = swarm.join("second", first)
        swarm.until_round(2, first, second)
        forger = trio.run(attack, first, second, tmp_path)
        assert forger.fetched == 0, "a daemon asked for a forged state"
        swarm.stop(first, second)
        assert swarm.agreement(first, second).agreed
