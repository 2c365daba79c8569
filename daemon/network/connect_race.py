"""Connects to the first of several addresses that answers (RFC 8305, "Happy Eyeballs").

An address that drops packets silently costs the delay of one attempt instead of a whole timeout,
whatever its family is. The caller orders the addresses, the most hopeful first.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Generic, TypeVar

import msgspec
import trio

from daemon.network.addresses import FAMILIES, PeerAddress

# Between the beginnings of two attempts (RFC 8305, section 5).
ATTEMPT_DELAY_S = 0.25

Key = TypeVar("Key")


class Target(msgspec.Struct, Generic[Key], frozen=True):
    """One address to try. `key` is what the caller wants to know of the winner."""

    key: Key
    kind: str
    host: str
    port: int

    @classmethod
    def of_address(cls, key: Key, address: PeerAddress) -> Target[Key]:
        return cls(key, address.kind, address.host, address.port)


class ConnectRace(Generic[Key]):
    """Attempts to connect to the addresses of one peer."""

    def __init__(self, targets: Iterable[Target[Key]], timeout_s: float) -> None:
        """
        Args:
            targets: The addresses. Each is taken from the iterable when its attempt begins.
            timeout_s: The time for one attempt, with the look-up of its name.
        """
        self._targets = iter(targets)
        self._timeout_s = timeout_s
        # Attempts that another one overtook.
        self._overtaken: list[Target[Key]] = []
        self.tried = 0
        # Why attempts failed, one sentence each.
        self.reasons: list[str] = []

    async def next_stream(self) -> tuple[Target[Key], trio.SocketStream] | None:
        """The next connection that comes about; None when no address is left.

        Where the other side turns out to be another peer, call again: addresses that failed are
        left out, and addresses that were overtaken are tried again.
        """
        won: list[tuple[Target[Key], trio.SocketStream]] = []
        running: dict[Target[Key], None] = {}
        waiting, self._overtaken = self._overtaken, []

        async def attempt(target: Target[Key], over: trio.Event) -> None:
            try:
                with trio.fail_after(self._timeout_s):
                    stream = await _connect(target)
            except trio.TooSlowError:
                self.reasons.append(f"{target.host}: no answer within {self._timeout_s:.0f} s")
            except (OSError, ValueError, OverflowError) as error:
                self.reasons.append(f"{target.host}: {error}")
            else:
                if won:
                    await trio.aclose_forcefully(stream)
                    return
                won.append((target, stream))
                nursery.cancel_scope.cancel()
            running.pop(target, None)
            over.set()

        async with trio.open_nursery() as nursery:
            for target in chain(waiting, self._targets):
                self.tried += 1
                running[target] = None
                over = trio.Event()
                nursery.start_soon(attempt, target, over)
                with trio.move_on_after(ATTEMPT_DELAY_S):
                    await over.wait()
                if won:
                    break
        self._overtaken = list(running)
        return won[0] if won else None


async def _connect(target: Target[Key]) -> trio.SocketStream:
    """Connect to one target. Raises `OSError` or `ValueError`."""
    host, family = target.host, FAMILIES.get(target.kind)
    if family:
        found = await trio.socket.getaddrinfo(host, target.port, family, trio.socket.SOCK_STREAM)
        host = str(found[0][4][0])
    return await trio.open_tcp_stream(host, target.port, happy_eyeballs_delay=ATTEMPT_DELAY_S)
