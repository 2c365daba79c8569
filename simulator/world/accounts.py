"""What became of a simulated node's work: certified, pending, or dropped."""

from __future__ import annotations

from daemon.services.training.native.state.state_store import StateStore
from protocol.certificates.certificate import OpenCertificate
from protocol.identity import PeerId


def certified(peer: PeerId, path: list[OpenCertificate]) -> int:
    """The samples of a node that the certificates of a path count."""
    return sum(
        certificate.plan.offers[index].samples
        for certificate in path
        if (index := certificate.plan.index.get(peer)) is not None
        and index in certificate.contributors
    )


def accounted(peer: PeerId, store: StateStore, dropped: int) -> int:
    """The samples that were certified for a node in all its lives, are pending, or were dropped.

    A node that restarts may lack the states of certificates on its disk. Work that they list and
    that its ledger has settled counts as certified.
    """
    lineage = store.lineage
    head = lineage.preferred_descendant(store.tip)
    ahead = [
        certificate
        for certificate in (lineage.path(store.tip, head) if head is not None else ())
        if 0 < certificate.listed.get(peer, 0) <= store.ledger.settled
    ]
    path = lineage.path(lineage.root, store.tip)
    return certified(peer, [*path, *ahead]) + store.ledger.pending + dropped
