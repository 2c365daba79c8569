"""How many handlers may run at a time: of one peer, and in all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from protocol.identity import PeerId


class StreamQuota:
    """Counts by peer; holds no entry for peers without any."""

    def __init__(self, limit: int, in_all: int | None = None) -> None:
        """`limit` is one peer's.

        Of `in_all`, peers that do not matter may hold three quarters, so that those that do always
        find room.
        """
        self._limit, self._in_all = limit, in_all
        self._taken: Counter[PeerId] = Counter()
        self._count = 0

    def full(self, peer: PeerId, matters: bool = True) -> bool:
        """Whether `peer` gets no further one."""
        if self._taken.get(peer, 0) >= self._limit:
            return True
        return self._in_all is not None and self._count >= (
            self._in_all if matters else self._in_all * 3 // 4
        )

    def take(self, peer: PeerId) -> Callable[[], None]:
        """Takes one and returns what gives it back; giving back twice does nothing."""
        self._taken[peer] += 1
        self._count += 1
        held = True

        def release() -> None:
            nonlocal held
            if held:
                held = False
                self._count -= 1
                self._taken[peer] -= 1
                if not self._taken[peer]:
                    del self._taken[peer]

        return release
