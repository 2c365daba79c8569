"""How many handlers may run at a time: for one peer, and in all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from protocol.identity import PeerId


class StreamQuota:
    """Counts running handlers by peer. It holds no entry for peers without any."""

    def __init__(self, of_peer: int, in_all: int | None = None) -> None:
        """
        Args:
            of_peer: The most handlers for one peer.
            in_all: The most handlers for all peers. Peers that do not matter may hold three
                quarters of them, so that those that do always find room.
        """
        self._of_peer, self._in_all = of_peer, in_all
        self._held: Counter[PeerId] = Counter()
        self._count = 0

    def full(self, peer: PeerId, matters: bool = True) -> bool:
        """Whether `peer` may not have another handler."""
        if self._held.get(peer, 0) >= self._of_peer:
            return True
        if self._in_all is None:
            return False
        return self._count >= (self._in_all if matters else self._in_all * 3 // 4)

    def acquire(self, peer: PeerId) -> Callable[[], None]:
        """Count one handler.

        Returns:
            The function that gives the place back. Its second call does nothing.
        """
        self._held[peer] += 1
        self._count += 1
        held = True

        def release() -> None:
            nonlocal held
            if held:
                held = False
                self._count -= 1
                self._held[peer] -= 1
                if not self._held[peer]:
                    del self._held[peer]

        return release
