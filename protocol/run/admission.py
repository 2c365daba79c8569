"""Who may take part in a run, as its manifest says.

    open         everybody
    registered   whoever names a wallet in its offers: the wallet signed for that peer, so peers cannot be made up by the thousand unbound
    allowlist    the peers that the manifest lists

These two are in every offer or in the manifest, so everybody checks them alike, in offers, plans
and certificates. A minimum reputation is each leader's own view: it leaves out of its plans whoever
is known to fall short of it. Who is new is not known, and let in.
"""

from __future__ import annotations

from msgspec import UNSET

from protocol.errors import PeerFault
from protocol.identity import PeerId, short
from protocol.messages.offer import BoundReady, Ready
from protocol.run.manifest import Manifest


def check_admission(manifest: Manifest, peer: PeerId, offer: Ready) -> None:
    """Raises `PeerFault("not_admitted")`. A binding is checked elsewhere."""
    admission = manifest.admission
    if admission is UNSET:
        return
    if admission.policy == "registered" and not isinstance(offer, BoundReady):
        raise PeerFault(
            "not_admitted",
            f"{short(peer)} names no wallet, and this run takes registered nodes only",
        )
    if admission.policy == "allowlist" and peer not in admission.allowed:
        raise PeerFault("not_admitted", f"{short(peer)} is not on this run's list")


def falls_short(manifest: Manifest, peer: PeerId, figure: int | None) -> str:
    """Why a leader leaves `peer` out; empty when it does not.

    `figure` is its reputation, None while it is new.
    """
    admission = manifest.admission
    if admission is UNSET or figure is None or figure >= admission.min_reputation:
        return ""
    return f"{short(peer)} has a reputation of {figure}, and this run asks for {admission.min_reputation}"
