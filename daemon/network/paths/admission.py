"""Admission to bulk streams: a peer's exact certificate arrived in something that it signed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from cryptography import x509

from protocol.errors import PeerFault
from protocol.identity import PeerId
from protocol.network.reachability import UNKNOWN_REACHABILITY, Reachability
from protocol.ports.endpoint import Endpoint

# Sixteen times the largest plan.
MAX_ADMITTED = 1024


class AdmittedPeers:
    """The certificates that are accepted now, at most `MAX_ADMITTED`.

    Keys are free, so a stranger can have any number of certificates admitted. Peers for which
    `matters` is true keep their place; of the others the one admitted first makes room.
    """

    def __init__(self, matters: Callable[[PeerId], bool] = lambda _peer: False) -> None:
        self.matters = matters
        self._certificates: OrderedDict[PeerId, bytes] = OrderedDict()
        self._peers: dict[bytes, PeerId] = {}
        self._reach: dict[PeerId, Reachability] = {}

    def __contains__(self, peer: PeerId) -> bool:
        return peer in self._certificates

    def peer_of(self, certificate: bytes) -> PeerId | None:
        """The peer that shows this certificate; None when it was not admitted."""
        return self._peers.get(certificate)

    def reach_of(self, peer: PeerId) -> Reachability:
        """What an admitted peer's last endpoint says of how others reach it."""
        return self._reach.get(peer, UNKNOWN_REACHABILITY)

    def admit(self, endpoint: Endpoint) -> None:
        """Accept the endpoint's certificate, in place of an earlier one of the same peer.

        Raises:
            PeerFault: "malformed", when the certificate cannot be parsed.
        """
        if self._certificates.get(endpoint.peer) == endpoint.certificate:
            self._certificates.move_to_end(endpoint.peer)
            self._reach[endpoint.peer] = endpoint.reach
            return
        try:
            x509.load_der_x509_certificate(endpoint.certificate)
        except ValueError as error:
            raise PeerFault(
                "malformed", f"the endpoint of {endpoint.peer} holds no certificate: {error}"
            ) from error
        self._certificates[endpoint.peer] = endpoint.certificate
        self._reach[endpoint.peer] = endpoint.reach
        self._certificates.move_to_end(endpoint.peer)
        while len(self._certificates) > MAX_ADMITTED:
            oldest = next(iter(self._certificates))
            stranger = next((peer for peer in self._certificates if not self.matters(peer)), oldest)
            del self._certificates[stranger]
            self._reach.pop(stranger, None)
        self._peers = {certificate: peer for peer, certificate in self._certificates.items()}
