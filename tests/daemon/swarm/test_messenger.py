"""Messenger: it closes unused streams, keeps messages in order, and reads the newest streams."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio

from daemon.swarm.frames import FrameReader, frame
from daemon.swarm.messenger import IDLE_S, PROTOCOL, STREAMS_READ, SWEEP_S, Messenger
from protocol.errors import Unreachable
from protocol.identity import Signer
from protocol.messages.base import MAX_MESSAGE_BYTES, Signed
from protocol.messages.envelope import decode_signed, encode_signed, open_as, sign
from protocol.messages.membership import Leave
from protocol.messages.round import Announce
from protocol.ports.byte_stream import ByteStream
from simulator.fakes.clock import run_virtual
from simulator.fakes.swarm import FakeSwarm

RUN = b"r" * 32
UNUSED_S = IDLE_S + SWEEP_S + 1.0


class Listener:
    """A peer that notes which stream brings which message, once `reads` is set."""

    def __init__(self) -> None:
        self.streams = 0
        self.open = 0
        self.heard: list[tuple[int, bytes]] = []
        self.reads = trio.Event()

    async def receive(self, stream: ByteStream) -> None:
        self.streams += 1
        self.open += 1
        number, reader = self.streams, FrameReader(stream)
        await self.reads.wait()
        while (data := await reader.next_frame(2 * MAX_MESSAGE_BYTES)) is not None:
            self.heard.append((number, open_as(Announce, decode_signed(data), RUN).certificate))
        self.open -= 1


def played(story: Callable[[Callable[[bytes], None], Listener], Awaitable[None]]) -> None:
    """Play `story` with a function that sends to a listener, and with the listener."""

    async def main() -> None:
        swarm, speaker, listener = FakeSwarm(random.Random(1)), Signer(b"s" * 32), Listener()
        here, there = swarm.network(b"s" * 32), swarm.network(b"l" * 32)

        async def deliver(_signed: Signed, _message: object) -> None: ...

        messenger = Messenger(
            here, RUN, deliver, lambda reason, _peer, detail: print(reason, detail)
        )
        there.serve(PROTOCOL, listener.receive)
        async with swarm.running(), here.running(), there.running(), trio.open_nursery() as nursery:
            await nursery.start(messenger.run)
            await trio.sleep(1.0)
            await story(
                lambda content: messenger.send(
                    there.peer, sign(speaker, RUN, Announce(certificate=content))
                ),
                listener,
            )
            nursery.cancel_scope.cancel()

    run_virtual(main)


def test_an_unused_stream_is_closed_and_a_later_message_opens_another() -> None:
    async def story(send: Callable[[bytes], None], listener: Listener) -> None:
        listener.reads.set()
        send(b"one")
        await trio.sleep(IDLE_S - 1.0)
        send(b"two")
        await trio.sleep(IDLE_S - 1.0)
        assert (listener.streams, listener.open) == (1, 1), "the stream was used"
        await trio.sleep(UNUSED_S)
        assert (listener.streams, listener.open) == (1, 0)
        send(b"three")
        await trio.sleep(1.0)
        assert listener.heard == [(1, b"one"), (1, b"two"), (2, b"three")]

    played(story)


def test_a_peer_that_reads_late_receives_all_messages_in_order_on_one_stream() -> None:
    async def story(send: Callable[[bytes], None], listener: Listener) -> None:
        contents = [bytes([number]) * (MAX_MESSAGE_BYTES - 1000) for number in range(4)]
        for one in contents[:3]:
            send(one)
        await trio.sleep(UNUSED_S)
        send(contents[3])
        await trio.sleep(1.0)
        listener.reads.set()
        await trio.sleep(1.0)
        assert listener.heard == [(1, one) for one in contents]

    played(story)


def test_the_newest_streams_of_a_peer_are_read_and_older_streams_end() -> None:
    async def main() -> None:
        swarm, speaker = FakeSwarm(random.Random(1)), Signer(b"s" * 32)
        here, there = swarm.network(b"s" * 32), swarm.network(b"l" * 32)
        heard: list[Signed] = []

        async def deliver(signed: Signed, _message: object) -> None:
            heard.append(signed)

        messenger = Messenger(there, RUN, deliver, lambda _reason, _peer, _detail: None)
        async with swarm.running(), here.running(), there.running(), trio.open_nursery() as nursery:
            await nursery.start(messenger.run)
            await trio.sleep(1.0)
            streams = []
            for _ in range(STREAMS_READ + 2):
                streams.append(await here.open_stream(there.peer, PROTOCOL))
                # The stream brings the length of a large message and a part of the message.
                await streams[-1].send_all(MAX_MESSAGE_BYTES.to_bytes(4, "big") + bytes(1000))
            message = sign(speaker, RUN, Announce(certificate=b"c"))
            last = await here.open_stream(there.peer, PROTOCOL)
            await last.send_all(frame(encode_signed(message)))
            await trio.sleep(1.0)
            for stream in streams[: 1 - STREAMS_READ]:
                with trio.fail_after(1.0), suppress(Unreachable):
                    assert await stream.receive_some(1) == b""
            with trio.move_on_after(1.0) as waited:
                await streams[-1].receive_some(1)
            assert waited.cancelled_caught, "the stream before the newest one is still read"
            assert heard == [message]
            nursery.cancel_scope.cancel()

    run_virtual(main)


def test_a_peer_passes_on_a_leave_and_no_other_message() -> None:
    async def main() -> None:
        swarm, speaker = FakeSwarm(random.Random(1)), Signer(b"x" * 32)
        here, there = swarm.network(b"s" * 32), swarm.network(b"l" * 32)
        heard: list[object] = []
        refused: list[str] = []

        async def deliver(signed: Signed, message: object) -> None:
            heard.append(message)

        listening = Messenger(
            there, RUN, deliver, lambda reason, _peer, _why: refused.append(reason)
        )
        sending = Messenger(here, RUN, deliver, lambda _reason, _peer, _why: None)
        leave = Leave(tip=RUN, serial=1)
        async with swarm.running(), here.running(), there.running(), trio.open_nursery() as nursery:
            await nursery.start(listening.run)
            await nursery.start(sending.run)
            await trio.sleep(1.0)
            sending.send(there.peer, sign(speaker, RUN, Announce(certificate=b"one")))
            await trio.sleep(5.0)
            sending.send(there.peer, sign(speaker, RUN, leave))
            await trio.sleep(5.0)
            nursery.cancel_scope.cancel()
        assert refused == ["identity"]
        assert heard == [leave]

    run_virtual(main)
