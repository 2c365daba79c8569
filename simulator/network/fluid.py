"""Max-min fair sharing: what each flow gets of the links that it crosses, as many TCP flows come to
share them.

All rates grow together until a link is full or a flow has all that it can take; those stay, the
others grow on (Bertsekas and Gallager, Data Networks, 6.5.2). A link is full of flows for good as
soon as it leaves each of them no more than any other link of theirs does; all such links are
settled in one pass, so that the passes are few however many flows there are.
"""

from __future__ import annotations

import msgspec
import numpy as np

from simulator.network.links import Floats, Ints

EQUAL = 1 + 1e-9  # what rounding makes of equal shares


class LinkKind(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of link: which one each flow crosses (shape (flows,)), and what each carries (shape
    (links,)).
    """

    which: Ints
    bits: Floats


def share_out(most: Floats, kinds: tuple[LinkKind, ...]) -> Floats:
    """Bits a second for each flow, shape (flows,), when flow i takes at most `most[i]` by itself."""
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
