"""What peers ask each other over `/hypergpu/traversal/1`: one request and one reply a stream.

Each message is its length (2 bytes) and msgpack. The sender is known by its control connection, so
that no request can speak for another peer.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import msgspec
import trio
from msgspec import Meta

from daemon.network.traversal.preamble import TOKEN_BYTES
from protocol.errors import PeerFault, Unreachable
from protocol.identity import PeerId
from protocol.ports.byte_stream import ByteStream

TRAVERSAL_PROTOCOL = "/hypergpu/traversal/1"
MAX_MESSAGE_BYTES = 1024
# A dial-back waits for two connects, and a relay for the other end.
REPLY_S = 12.0

Token = Annotated[bytes, Meta(min_length=TOKEN_BYTES, max_length=TOKEN_BYTES)]
Peer = Annotated[PeerId, Meta(max_length=60)]
Host = Annotated[str, Meta(max_length=45)]
Port = Annotated[int, Meta(ge=0, le=65_535)]
Text = Annotated[str, Meta(max_length=200)]

Purpose = Literal["control", "bulk"]


class _Message(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag=True, forbid_unknown_fields=True
):
    """Base of the messages."""


class OuterAddress(_Message, frozen=True, kw_only=True, array_like=True, tag=True):
    """Where others see a socket."""

    host: Host
    port: Port


class DialBack(_Message, frozen=True, kw_only=True, array_like=True, tag=True):
    """Asks for a call to each of these ports, at the address from which the asker is seen."""

    control: Port
    # 0 for an observer, which has no bulk port.
    bulk: Port
    token: Token


class DialedBack(_Message, frozen=True, kw_only=True, array_like=True, tag=True):
    """Where the asker was called, and which calls it answered."""

    host: Host
    control: bool
    bulk: bool
    # Where other sockets of the asker can see their outer address.
    observe_at: tuple[Port, ...] = ()


class CallMe(_Message, frozen=True, kw_only=True, array_like=True, tag=True):
    """Asks the receiver to connect to the sender's bulk port, where the two met."""

    port: Port
    token: Token


class AskRelay(_Message, frozen=True, kw_only=True, array_like=True, tag=True):
    """Asks whether the receiver is connected to a peer, and would relay to it."""

    to: Peer


class RelayState(_Message, frozen=True, kw_only=True, array_like=True, tag=True):
    """Whether the receiver of `AskRelay` is connected to the peer, and what it relays now."""

    knows: bool
    sessions: Annotated[int, Meta(ge=0)]
    # 0 where it relays nothing.
    most: Annotated[int, Meta(ge=0)]
    # Where a caller can see its outer address.
    observe_at: Port
    # The most that its owner lets it relay, bits a second; 0: no cap.
    cap_bps: Annotated[float, Meta(ge=0)] = 0.0


class Introduce(_Message, frozen=True, kw_only=True, array_like=True, tag=True):
    """Asks the receiver for a connection to a peer that both are connected to.

    With `outer`, both ends call each other there. Without, the receiver relays.
    """

    to: Peer
    purpose: Purpose
    outer: OuterAddress | None = None


class Incoming(_Message, frozen=True, kw_only=True, array_like=True, tag=True):
    """Passes an `Introduce` on. The receiver calls `port` of the sender, with the token.

    With `outer`, it asks that port for its own outer address instead, and calls `peer` at `outer`.
    """

    peer: Peer
    purpose: Purpose
    port: Port
    token: Token
    outer: OuterAddress | None = None


class Introduced(_Message, frozen=True, kw_only=True, array_like=True, tag=True):
    """The peer agreed: call `port` of the relay with the token, or the peer at `outer`."""

    port: Port = 0
    token: Token = bytes(TOKEN_BYTES)
    outer: OuterAddress | None = None


class Done(_Message, frozen=True, kw_only=True, array_like=True, tag=True):
    """The receiver does what was asked."""


class Refused(_Message, frozen=True, kw_only=True, array_like=True, tag=True):
    """The receiver does not do what was asked, and says why."""

    reason: Text


Request = DialBack | CallMe | AskRelay | Introduce | Incoming
Reply = DialedBack | RelayState | Introduced | Done | Refused
_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)

_Wanted = TypeVar("_Wanted", bound=_Message)


async def send_message(stream: ByteStream, message: _Message) -> None:
    """Send one message. Raises `Unreachable`."""
    data = msgspec.msgpack.encode(message)
    await stream.send_all(len(data).to_bytes(2, "big") + data)


async def receive_request(stream: ByteStream) -> Request:
    """The request of a stream. Raises `PeerFault` or `Unreachable`."""
    request: Request = await _receive(stream, _requests)
    return request


async def request_over(stream: ByteStream, request: Request, wanted: type[_Wanted]) -> _Wanted:
    """Send a request and wait for its reply. The stream is closed.

    Raises:
        Unreachable: No reply of the wanted kind within `REPLY_S`; the text says why.
    """
    try:
        with trio.fail_after(REPLY_S):
            await send_message(stream, request)
            reply = await _receive(stream, _replies)
    except trio.TooSlowError:
        raise Unreachable(f"{stream.peer} did not answer within {REPLY_S:.0f} s") from None
    except PeerFault as fault:
        raise Unreachable(f"{stream.peer} answered nonsense: {fault}") from fault
    finally:
        await stream.aclose()
    if isinstance(reply, Refused):
        raise Unreachable(f"{stream.peer}: {reply.reason}")
    if not isinstance(reply, wanted):
        raise Unreachable(f"{stream.peer} answered something else")
    return reply


async def _receive(stream: ByteStream, decoder: msgspec.msgpack.Decoder[Any]) -> Any:
    data, size = b"", 2
    while len(data) < size:
        piece = await stream.receive_some(size - len(data))
        if not piece:
            raise Unreachable(f"{stream.peer} ended a request in its middle")
        data += piece
        if len(data) == size == 2:
            size += int.from_bytes(data, "big")
            if size > 2 + MAX_MESSAGE_BYTES:
                raise PeerFault("oversized", f"a request of {size} bytes from {stream.peer}")
    try:
        return decoder.decode(data[2:])
    except (msgspec.DecodeError, RecursionError) as error:
        raise PeerFault("malformed", f"a request of {stream.peer}: {error}") from None
