"""`/ws`: the messages of the original dashboard, over a WebSocket (RFC 6455)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress

import msgspec
from aiohttp import WSMsgType, web

from daemon.observer.api.broadcaster import Broadcaster, Subscription
from daemon.observer.api.dashboard import changes, greeting, message_of
from protocol.status import Status

LOOK_S = 1.0
"""Between two looks at the status. Certificates are sent at once."""

HEARTBEAT_S = 20.0
MAX_MESSAGE_BYTES = 4096
"""Clients have nothing to say; their messages are read and ignored."""

WRITE_S = 10.0
_encode = msgspec.json.Encoder().encode


async def serve_web_socket(
    request: web.BaseRequest,
    headers: Mapping[str, str],
    status: Callable[[], Status],
    broadcaster: Broadcaster,
) -> web.StreamResponse:
    """Send messages until the client leaves, or reads too slowly, or the server stops."""
    socket = web.WebSocketResponse(
        heartbeat=HEARTBEAT_S, max_msg_size=MAX_MESSAGE_BYTES, compress=False
    )
    socket.headers.update(headers)
    with broadcaster.subscription() as events:
        await socket.prepare(request)
        reading = asyncio.ensure_future(_read(socket, events))
        # The client may leave at any time; a slow one is closed.
        with suppress(ConnectionError, TimeoutError):
            await _tell(socket, status, events)
        reading.cancel()
        with suppress(ConnectionError, TimeoutError):
            await asyncio.wait_for(socket.close(), WRITE_S)
    return socket


async def _read(socket: web.WebSocketResponse, events: Subscription) -> None:
    """Read until the client closes, so that pings are answered; then end the subscription."""
    async for message in socket:
        if message.type is WSMsgType.ERROR:
            break
    events.drop()


async def _tell(
    socket: web.WebSocketResponse, status: Callable[[], Status], events: Subscription
) -> None:
    shown = status()
    await _send(socket, _encode(greeting(shown)))
    loop = asyncio.get_running_loop()
    look_at = loop.time() + LOOK_S
    while True:
        try:
            event = await asyncio.wait_for(events.get(), max(0.0, look_at - loop.time()))
        except TimeoutError:
            now = status()
            for message in changes(shown, now) if now is not shown else ():
                await _send(socket, _encode(message))
            shown, look_at = now, loop.time() + LOOK_S
            continue
        if event is None:
            return
        told = message_of(event)
        if told is not None:
            await _send(socket, _encode(told))


async def _send(socket: web.WebSocketResponse, data: bytes) -> None:
    """Send one message. Raises `TimeoutError` for a client that does not read."""
    await asyncio.wait_for(socket.send_str(data.decode()), WRITE_S)
