"""The certificate that the history of a node must contain. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from protocol.certificates.tip import Tip
from protocol.digest import Digest


class RequiredCertificate:
    """The required certificate, if there is one, and the kept certificates that descend from it."""

    def __init__(self) -> None:
        self._name: Digest | None = None
        self._descendants: set[Digest] = set()

    def require(self, name: Digest | None) -> None:
        """Require this certificate from now on; None requires nothing."""
        self._name = name
        self._descendants.clear()

    def note(self, made: Tip, parents: Iterable[Tip]) -> None:
        """Note a verified certificate and its parents."""
        if self._name is not None and (
            made.hash == self._name or any(parent.hash in self._descendants for parent in parents)
        ):
            self._descendants.add(made.hash)

    def forget(self, name: Digest) -> None:
        """Note that a certificate is no longer kept."""
        self._descendants.discard(name)

    def leads_to(self, tip: Tip) -> bool:
        """Whether `tip` descends from the required certificate, or nothing is required."""
        return self._name is None or tip.hash in self._descendants

    @property
    def missing(self) -> Digest | None:
        """The required certificate, while no kept one leads there."""
        return None if self._descendants else self._name
