"""Which source brought which certificate, so that no source fills the lineage.

Strangers can certify anything among keys of their own. So each source has a share of the memory,
and the source with most makes room when all have too many.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from protocol.digest import Digest

# Certificates of our own ancestry, and of what one peer gave when it was asked. A partition of 512
# rounds can still be recognized.
TIPS_KEPT = 512
# Certificates of all other sources.
OTHERS_KEPT = 1024
# Certificates that arrived unasked. Each head among them is looked at again and again.
UNASKED_KEPT = 256
# Unasked certificates of one peer: the last of a branch, which is merged or asked for.
UNASKED_BY_ONE = 32
# Follows a source's name in the account of what it gave when it was asked.
_ASKED = " asked"


class CertificateShares:
    """The certificates of each source, the oldest first."""

    def __init__(self, forget: Callable[[Digest], None]) -> None:
        """`forget` drops a certificate; it must call `discard`."""
        self._forget = forget
        self._shares: dict[str, OrderedDict[Digest, None]] = {}

    def discard(self, name: Digest) -> None:
        """Remove a certificate from every share."""
        for account, share in list(self._shares.items()):
            if name in share:
                del share[name]
                if not share:
                    del self._shares[account]

    def charge(self, name: Digest, source: str, asked: bool) -> None:
        """Add a certificate to its source's share, and forget the oldest of those in excess."""
        account = source + _ASKED if asked else source
        share = self._shares.setdefault(account, OrderedDict())
        share[name] = None
        if len(share) > (TIPS_KEPT if asked or not source else UNASKED_BY_ONE):
            self._forget(next(iter(share)))
        unasked = [kept for by, kept in self._shares.items() if by and not by.endswith(_ASKED)]
        if sum(map(len, unasked)) > UNASKED_KEPT:
            largest = max(unasked, key=len)
            self._forget(next(iter(largest)))
        if sum(map(len, self._shares.values())) > OTHERS_KEPT:
            largest = max(self._shares.values(), key=len)
            self._forget(next(iter(largest)))
