"""Where the owner of a run lets it go on (rules 4), as a part of the lineage. Pure.

`protocol/membership/recovery.py` makes the tip of a recovery.
"""

from __future__ import annotations

from collections.abc import Callable

from daemon.swarm.ancestry import Ancestry
from protocol.certificates.tip import Tip
from protocol.digest import Digest
from protocol.membership.recovery import recovered_tip, recovery_name
from protocol.messages.membership import Recovery


class Recoveries:
    """The known recoveries of one run. The one with the highest serial counts."""

    def __init__(
        self, run: Digest, ancestry: Ancestry, tip_of: Callable[[Digest], Tip | None]
    ) -> None:
        """`tip_of` returns the tip with a name; None where it is not kept."""
        self._run = run
        self._ancestry, self._tip_of = ancestry, tip_of
        self._by_name: dict[Digest, Recovery] = {}
        self._tips: dict[Digest, Tip] = {}

    def add(self, recovery: Recovery) -> bool:
        """Note a recovery.

        Returns:
            Whether it was unknown.
        """
        name = recovery_name(self._run, recovery)
        if name in self._by_name:
            return False
        self._by_name[name] = recovery
        self._ancestry.recover(name, recovery.tip)
        return True

    def tip(self, name: Digest) -> Tip | None:
        """The tip of the recovery with that name, where its certificate is known."""
        if name in self._tips:
            return self._tips[name]
        before = self.base(name)
        if before is None:
            return None
        self._tips[name] = recovered_tip(before, name, self._by_name[name])
        return self._tips[name]

    @property
    def newest(self) -> Tip | None:
        """The tip of the recovery that counts, where its certificate is known."""
        newest = max(self._by_name.items(), key=lambda item: item[1].serial, default=None)
        return self.tip(newest[0]) if newest is not None else None

    def base(self, name: Digest) -> Tip | None:
        """The tip of the certificate that a recovery goes on from."""
        recovery = self._by_name.get(name)
        return self._tip_of(recovery.tip) if recovery is not None else None
