"""Plans that were opened and found right: a plan comes once by itself, and again inside every copy of the certificate made from it.

Opening one means checking its offers' signatures and making it again, 1 ms among four and 30 among 64; of a round's control that was a tenth.
"""

from __future__ import annotations

from protocol.digest import Digest
from protocol.manifest import Manifest
from protocol.messages import Signed
from protocol.plan import OpenPlan, open_plan

PLANS_KEPT = 4  # a round has one, two where a view failed; one of 64 members is 100 KB


class OpenPlans:
    """The last plans of one run that this node opened. What was refused is looked at again each time."""

    def __init__(self, run: Digest, manifest: Manifest) -> None:
        self._run, self._manifest = run, manifest
        self._kept: dict[tuple[Signed, int | None], OpenPlan] = {}

    def open(self, signed: Signed, chunks: int | None, *, trusted: bool = False) -> OpenPlan:
        """As `open_plan`. Raises `PeerFault`."""
        if trusted:
            return open_plan(signed, self._run, self._manifest, chunks, trusted=True)
        known = self._kept.get((signed, chunks))
        if known is None:
            known = self._kept[signed, chunks] = open_plan(signed, self._run, self._manifest, chunks)
            while len(self._kept) > PLANS_KEPT:
                del self._kept[next(iter(self._kept))]
        return known
