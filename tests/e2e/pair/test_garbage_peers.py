"""Peers that break the rules of the run's protocols: each breach is counted by its reason."""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
import trio

from daemon.services.training.native.exchange.bulk_headers import PROTOCOL as BULK
from daemon.services.training.native.exchange.bulk_headers import SliceHeader
from daemon.swarm.chain_sync import PROTOCOL as CHAIN
from daemon.swarm.chain_sync import ChainRequest
from daemon.swarm.frames import frame
from daemon.swarm.state_transfer import PROTOCOL as STATE
from protocol.averaging.vector_layout import chunk_count
from protocol.digest import digest
from protocol.errors import Unreachable
from protocol.identity import Signer
from protocol.messages.base import Signed
from protocol.messages.envelope import encode_signed, payload_of, sign
from protocol.messages.offer import Ready
from protocol.messages.round import Announce, Plan
from protocol.planning.plan import make_plan
from tests.e2e.pair.conftest import Pair
from tests.e2e.processes import POLL_S, Process
from tests.e2e.stranger import Stranger, stranger_at
from tests.e2e.swarm import ROUND_S

# The length of a frame that announces a gigabyte.
HUGE = (1 << 30).to_bytes(4, "big")
# More than the daemon may grow by. The daemon reads a stranger's flood at 1 MB/s.
READ_MEGABYTES = 16
# Limit for a daemon under a flood of 100 MB: a few buffers of 1 MB, and allocator overhead.
GROWTH_BYTES = 12 << 20

pytestmark = [
    pytest.mark.real,
    pytest.mark.swarm,
    pytest.mark.xdist_group("pair"),
    pytest.mark.timeout(180),
]


async def random_frame(stranger: Stranger) -> None:
    await stranger.say(frame(random.Random(5).randbytes(500)))


async def oversized_frame(stranger: Stranger) -> None:
    await stranger.say(HUGE + bytes(100_000))


async def unsigned(stranger: Stranger) -> None:
    body = payload_of(stranger.beacon())
    await stranger.say(frame(encode_signed(Signed(body, stranger.signer.peer, bytes(64)))))


async def of_another_run(stranger: Stranger) -> None:
    await stranger.say(frame(stranger.signed(stranger.beacon(), run=digest(b"another run"))))


async def in_another_name(stranger: Stranger) -> None:
    await stranger.say(frame(stranger.signed(stranger.beacon(), signer=Signer(os.urandom(32)))))


async def signed_nonsense(stranger: Stranger) -> None:
    body = random.Random(6).randbytes(200)
    signature = stranger.signer.sign(b"hypergpu/message/1\0" + stranger.run + body)
    await stranger.say(frame(encode_signed(Signed(body, stranger.signer.peer, signature))))


async def forged_certificate(stranger: Stranger) -> None:
    await stranger.tell(Announce(certificate=await stranger.forged_certificate()))


async def forged_certificate_by_gossip(stranger: Stranger) -> None:
    await stranger.network.publish(stranger.certificates, await stranger.forged_certificate())


async def random_gossip(stranger: Stranger) -> None:
    await stranger.network.publish(stranger.beacons, random.Random(7).randbytes(300))


async def chain_of_another_run(stranger: Stranger) -> None:
    await stranger.say(
        frame(msgspec.msgpack.encode(ChainRequest(run=digest(b"another run"), first=1))),
        protocol=CHAIN,
    )


async def oversized_state_request(stranger: Stranger) -> None:
    await stranger.say(HUGE, protocol=STATE)


async def no_protocol(stranger: Stranger) -> None:
    with pytest.raises(Unreachable):
        await stranger.network.open_stream(stranger.peer, "/hypergpu/backdoor/1")


async def bulk(stranger: Stranger, data: bytes, protocol: str = BULK) -> None:
    """Send bytes on a bulk stream that the stranger's real certificate opened."""
    assert stranger.endpoint is not None
    stream = await stranger.network.open_bulk(stranger.endpoint, protocol)
    try:
        await stream.send_all(data)
        while await stream.receive_some(65536):
            pass
    except Unreachable:
        pass
    finally:
        await stream.aclose()


async def oversized_bulk_header(stranger: Stranger) -> None:
    await bulk(stranger, HUGE + bytes(100_000))


async def random_bulk_header(stranger: Stranger) -> None:
    await bulk(stranger, frame(random.Random(8).randbytes(500)))


async def slice_of_no_plan(stranger: Stranger) -> None:
    header = SliceHeader(plan=digest(b"no plan"), slice=0, proof=(), size=1 << 30)
    await bulk(stranger, frame(msgspec.msgpack.encode(header)) + bytes(1 << 20))


async def no_bulk_protocol(stranger: Stranger) -> None:
    assert stranger.endpoint is not None
    with pytest.raises(Unreachable):
        await stranger.network.open_bulk(stranger.endpoint, "/hypergpu/backdoor/1")


BREACHES: dict[Callable[[Stranger], Awaitable[None]], str] = {
    random_frame: "malformed",
    oversized_frame: "oversized",
    unsigned: "unsigned",
    # The run is part of the signed bytes, so the signature of a message of another run is invalid.
    of_another_run: "unsigned",
    in_another_name: "identity",
    signed_nonsense: "malformed",
    forged_certificate: "bad_certificate",
    forged_certificate_by_gossip: "bad_certificate",
    random_gossip: "malformed",
    chain_of_another_run: "other_run",
    oversized_state_request: "oversized",
    no_protocol: "unknown_kind",
    oversized_bulk_header: "oversized",
    random_bulk_header: "malformed",
    no_bulk_protocol: "unknown_kind",
}


async def test_each_breach_is_counted_by_its_reason(pair: Pair, tmp_path: Path) -> None:
    missing = []

    async def is_counted(breach: Callable[[Stranger], Awaitable[None]], reason: str) -> None:
        before = await stranger.count(reason)
        with trio.move_on_after(ROUND_S) as patience:
            await breach(stranger)
            while await stranger.count(reason) <= before:
                await trio.sleep(POLL_S)
        if patience.cancelled_caught:
            missing.append(f"{breach.__name__} was not counted as {reason}")

    async with stranger_at(pair.target, tmp_path) as stranger, trio.open_nursery() as nursery:
        # The daemon waits 15 s for a plan that the slice may belong to.
        nursery.start_soon(is_counted, slice_of_no_plan, "stale")
        for breach, reason in BREACHES.items():
            await is_counted(breach, reason)
    assert not missing


async def test_plan_of_a_peer_that_does_not_lead_is_refused(pair: Pair, tmp_path: Path) -> None:
    """A stranger that claims the newest certificate and offers nothing cannot plan the round."""
    async with stranger_at(pair.target, tmp_path) as stranger:
        manifest = await stranger.manifest()
        before = await stranger.count("not_leader")
        with trio.fail_after(ROUND_S):
            while await stranger.count("not_leader") <= before:
                status = await trio.to_thread.run_sync(pair.target.now)
                tip, number = bytes.fromhex(status.run.tip), status.run.number
                await stranger.tell(stranger.beacon(tip=tip, number=number))
                await stranger.tell(
                    false_plan(
                        stranger, tip, number + 1, chunk_count(status.run.parameters), manifest
                    )
                )
        status = await trio.to_thread.run_sync(pair.target.now)
        assert stranger.signer.peer not in {
            member for known in status.rounds for member in known.members
        }


def false_plan(
    stranger: Stranger, tip: bytes, number: int, chunks: int, manifest: msgspec.Struct
) -> Plan:
    """Return a plan that is valid except for its author."""
    offers = []
    for signer in (stranger.signer, Signer(bytes(32))):
        offer = Ready(
            parent=tip,
            view=0,
            number=number,
            seq=1,
            samples=1000,
            contribution=digest(b"nothing"),
            loss=0.0,
            fingerprint=digest(stranger.network.endpoint.certificate),
            uplink_bps=0,
            downlink_bps=0,
        )
        offers.append((sign(signer, stranger.run, offer), offer))
    return make_plan(tip, 0, number, offers, manifest, chunks)


async def test_flood_costs_no_memory(pair: Pair, tmp_path: Path) -> None:
    node: Process = pair.target.process()
    async with stranger_at(pair.target, tmp_path) as stranger:
        # The daemon makes its lasting buffers now.
        await flood(stranger, megabytes=10, read=10)
        before = node.memory_bytes
        await flood(stranger, megabytes=100, read=READ_MEGABYTES)
        grown = node.memory_bytes - before
        print(f"the daemon holds {before >> 20} MB; under the flood {grown / (1 << 20):+.1f} MB")
        assert grown < GROWTH_BYTES


async def flood(stranger: Stranger, *, megabytes: int, read: int) -> None:
    """Send unsigned messages of the largest size, 256 KiB each, over one stream.

    The target reads them at the rate that it allows a peer, and refuses each. The flood ends when
    the target has read `read` megabytes; the rest waits in the kernel's buffers.
    """
    body = random.Random(9).randbytes((1 << 18) - 300)
    message = frame(encode_signed(Signed(body, stranger.signer.peer, bytes(64))))
    before = await stranger.count("unsigned")
    with trio.fail_after(ROUND_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stranger.say, *[message] * (4 * megabytes))
            while await stranger.count("unsigned") < before + 4 * read:
                await trio.sleep(POLL_S)
            nursery.cancel_scope.cancel()
