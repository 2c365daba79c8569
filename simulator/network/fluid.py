"""Max-min fair sharing of links among flows, as many TCP flows come to share them.

All rates grow together until a link is full or a flow has its maximum. Those flows keep their
rates, and the others grow on (Bertsekas and Gallager, Data Networks, 6.5.2). A link is full for
good as soon as it leaves each of its flows no more than any of the flow's other links does. All
such links are settled in one pass, so the passes are few however many flows there are.
"""

from __future__ import annotations

import msgspec
import numpy as np

from simulator.network.links import Floats, Ints

# Two shares within this factor count as equal: they differ by rounding.
EQUAL = 1 + 1e-9


class LinkKind(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of link.

    `which` is the link that each flow crosses, shape (flows,). `bits` is what each link carries per
    second, shape (links,).
    """

    which: Ints
    bits: Floats


def share_out(most: Floats, kinds: tuple[LinkKind, ...]) -> Floats:
    """Bits per second of each flow, shape (flows,). Flow i needs at most `most[i]`."""
    rates = np.zeros_like(most)
    open_ = np.arange(len(most))
    free = [kind.bits.copy() for kind in kinds]
    while open_.size:
        level = most[open_]
        shares = []
        for kind, left in zip(kinds, free, strict=True):
            crossed = kind.which[open_]
            count = np.bincount(crossed, minlength=len(left))
            share = np.maximum(left, 0.0) / np.maximum(count, 1)
            shares.append((crossed, share))
            level = np.minimum(level, share[crossed])
        settled = most[open_] <= level * EQUAL
        for crossed, share in shares:
            least = np.full(len(share), np.inf)
            np.minimum.at(least, crossed, level)
            full = share <= least * EQUAL
            settled |= full[crossed]
        done = open_[settled]
        rates[done] = level[settled]
        for i, kind in enumerate(kinds):
            free[i] -= np.bincount(kind.which[done], weights=rates[done], minlength=len(free[i]))
        open_ = open_[~settled]
    return rates
