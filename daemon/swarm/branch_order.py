"""Which of several branches comes first. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cmp_to_key

from daemon.swarm.ancestry import Ancestry
from daemon.swarm.forks import Forks
from daemon.swarm.recoveries import Recoveries
from protocol.certificates.tip import Tip, prefer
from protocol.rules.versions import RULES_4


class BranchOrder:
    """Orders the tips of different branches of one lineage."""

    def __init__(
        self, rules: int, ancestry: Ancestry, forks: Forks, recoveries: Recoveries
    ) -> None:
        """`rules` is the version of the run's rules."""
        self._prefer = prefer if rules < RULES_4 else forks.prefer
        self._ancestry = ancestry
        self._recoveries = recoveries

    def prefer(self, first: Tip, second: Tip) -> Tip:
        """The preferred one of two tips on different branches.

        A branch that follows the owner's recovery comes before one that does not.
        """
        recovered = self._recoveries.newest
        if recovered is not None:
            one = self._ancestry.descends(first, recovered)
            two = self._ancestry.descends(second, recovered)
            if one != two:
                return first if one else second
        return self._prefer(first, second)

    def sorted(self, tips: Iterable[Tip]) -> list[Tip]:
        """The tips, the preferred one first."""

        def compare(first: Tip, second: Tip) -> int:
            return 0 if first is second else -1 if self.prefer(first, second) is first else 1

        return sorted(tips, key=cmp_to_key(compare))
