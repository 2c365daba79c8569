"""The living nodes by the tip that they hold."""

from __future__ import annotations

from collections.abc import Iterator

from protocol.digest import Digest
from protocol.identity import PeerId

# Sets kept as they were last asked for. A round asks for one or two.
TIPS_FROZEN = 8


class LiveNodes:
    """An index that changes with each beacon and is asked for whole sets."""

    def __init__(self) -> None:
        self._live: dict[Digest, dict[PeerId, None]] = {}
        self._frozen: dict[Digest, frozenset[PeerId]] = {}

    def __iter__(self) -> Iterator[tuple[Digest, dict[PeerId, None]]]:
        return iter(self._live.items())

    def add(self, peer: PeerId, tip: Digest) -> None:
        self._live.setdefault(tip, {})[peer] = None
        self._frozen.pop(tip, None)

    def discard(self, peer: PeerId, tip: Digest | None) -> None:
        """Remove a peer; nothing happens when `tip` is None."""
        if tip is None:
            return
        nodes = self._live[tip]
        del nodes[peer]
        self._frozen.pop(tip, None)
        if not nodes:
            del self._live[tip]

    def at(self, tip: Digest) -> frozenset[PeerId]:
        """The living nodes that hold the anchor of `tip`."""
        frozen = self._frozen.get(tip)
        if frozen is None:
            frozen = self._frozen[tip] = frozenset(self._live.get(tip, ()))
            if len(self._frozen) > TIPS_FROZEN:
                del self._frozen[next(iter(self._frozen))]
        return frozen
