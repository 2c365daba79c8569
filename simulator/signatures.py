"""One world, one check of each signature: whether a key signed some bytes does not depend on who asks.

A certificate's thirty signatures are checked by every node of a swarm. In a world all of them are in one process, and two thirds of
its time would go there. What was never checked is checked for real, so a forged signature fails for whoever sees it first and for everybody after.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from protocol import manifest, messages
from protocol.identity import verify

CHECKS_KEPT = 1 << 15  # several rounds of a thousand nodes


@contextmanager
def checked_once() -> Iterator[None]:
    """Inside, `verify` remembers what it answered for (peer, signature, message)."""
    remembering = lru_cache(maxsize=CHECKS_KEPT)(verify)
    owners = (messages, manifest)
    for owner in owners:
        owner.verify = remembering  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for owner in owners:
            owner.verify = verify  # type: ignore[attr-defined]
