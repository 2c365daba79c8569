"""How many handlers of one peer may run at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from protocol.identity import PeerId


class Slots:
    """Counts by peer; holds no entry for peers without any."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken: Counter[PeerId] = Counter()

    def full(self, peer: PeerId) -> bool:
        return self._taken[peer] >= self._limit

    def take(self, peer: PeerId) -> Callable[[], None]:
        """Takes one and returns what gives it back; giving back twice does nothing."""
        self._taken[peer] += 1
        held = True

        def release() -> None:
            nonlocal held
            if held:
                held = False
                self._taken[peer] -= 1
                if not self._taken[peer]:
                    del self._taken[peer]

        return release
