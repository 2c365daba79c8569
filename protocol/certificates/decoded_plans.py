"""Plans that were read and found right: a plan comes once by itself, and again inside every copy of
the certificate made from it.

Opening one means checking its offers' signatures and making it again, 1 ms among four and 30 among
64; of a round's control that was a tenth.
"""

from __future__ import annotations

from protocol.digest import Digest
from protocol.messages.base import Signed
from protocol.planning.plan import OpenPlan, open_plan, read_plan
from protocol.run.manifest import Manifest

# A round has one, two where a view failed; one of 64 members is 100 KB.
PLANS_KEPT = 4


class DecodedPlans:
    """The last plans of one run that this node opened.

    What was refused is looked at again each time.
    """

    def __init__(self, run: Digest, manifest: Manifest) -> None:
        self._run, self._manifest = run, manifest
        self._kept: dict[tuple[Signed, int | None], OpenPlan] = {}
        # Of those kept, the ones that follow from their offers.
        self._made_again: set[tuple[Signed, int | None]] = set()

    def open(self, signed: Signed, chunks: int | None) -> OpenPlan:
        """As `open_plan`: for a plan to be carried out. Raises `PeerFault`."""
        if (signed, chunks) not in self._made_again:
            self._keep(signed, chunks, open_plan(signed, self._run, self._manifest, chunks))
            self._made_again.add((signed, chunks))
        return self._kept[signed, chunks]

    def read(self, signed: Signed, chunks: int | None, *, trusted: bool = False) -> OpenPlan:
        """As `read_plan`: for the plan of a certificate. Raises `PeerFault`."""
        if trusted:
            return read_plan(signed, self._run, self._manifest, chunks, trusted=True)
        known = self._kept.get((signed, chunks))
        return known or self._keep(
            signed, chunks, read_plan(signed, self._run, self._manifest, chunks)
        )

    def _keep(self, signed: Signed, chunks: int | None, plan: OpenPlan) -> OpenPlan:
        self._kept[signed, chunks] = plan
        while len(self._kept) > PLANS_KEPT:
            forgotten = next(iter(self._kept))
            del self._kept[forgotten]
            self._made_again.discard(forgotten)
        return plan
