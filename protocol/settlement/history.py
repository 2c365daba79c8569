"""A run's certificates, with the owner's recoveries that stand between them.

Rounds after a recovery name it as their parent. A settlement needs to know from which certificate
it went on (`protocol/membership/recovery.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import overload

from protocol.certificates.certificate import OpenCertificate
from protocol.digest import Digest
from protocol.membership.recovery import recovery_name
from protocol.messages.membership import Recovery


class CertifiedHistory(Sequence[OpenCertificate]):
    """All certificates that a node holds of a run, oldest first, and the owner's recoveries."""

    def __init__(
        self,
        run: Digest,
        certificates: Iterable[OpenCertificate],
        recoveries: Iterable[Recovery] = (),
    ) -> None:
        self._certificates = tuple(certificates)
        # By the name that rounds after it give as their parent.
        self.recoveries: Mapping[Digest, Recovery] = {
            recovery_name(run, recovery): recovery for recovery in recoveries
        }

    @overload
    def __getitem__(self, index: int) -> OpenCertificate: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[OpenCertificate]: ...

    def __getitem__(self, index: int | slice) -> OpenCertificate | Sequence[OpenCertificate]:
        return self._certificates[index]

    def __len__(self) -> int:
        return len(self._certificates)


def recoveries_in(certificates: Iterable[OpenCertificate]) -> Mapping[Digest, Recovery]:
    """The recoveries among certificates, by name; none where they come without any."""
    return certificates.recoveries if isinstance(certificates, CertifiedHistory) else {}


def taken_back(certificates: Sequence[OpenCertificate], tip: Digest) -> bool:
    """Whether the owner's last recovery left a certificate out of the run.

    The certificate that the recovery names stays, and so does everything before it and after the
    recovery.
    """
    recoveries = recoveries_in(certificates)
    newest = max(recoveries.items(), key=lambda item: item[1].serial, default=None)
    if newest is None:
        return False
    parents: dict[Digest, Sequence[Digest]] = {
        one.hash: one.outcome.parents for one in certificates
    }
    parents |= {name: (recovery.tip,) for name, recovery in recoveries.items()}
    name, recovery = newest
    return name not in _above(tip, parents) and tip not in _above(recovery.tip, parents)


def last_in_lineage(certificates: Sequence[OpenCertificate]) -> OpenCertificate | None:
    """The last certificate that no recovery of the owner left out of the run."""
    return next(
        (one for one in reversed(certificates) if not taken_back(certificates, one.hash)), None
    )


def _above(tip: Digest, parents: Mapping[Digest, Sequence[Digest]]) -> set[Digest]:
    seen, waiting = {tip}, [tip]
    while waiting:
        fresh = [name for name in parents.get(waiting.pop(), ()) if name not in seen]
        seen.update(fresh)
        waiting += fresh
    return seen
