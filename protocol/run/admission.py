"""Who may take part in a run, as its manifest says.

    open         any node
    registered   nodes that name a wallet in their offers. The wallet signed for the peer, so peers
                 cannot be invented by the thousand.
    allowlist    the peers that the manifest lists

Under rules 4, the membership record says more (`protocol/membership/admission.py`): it also admits
founders and peers that the owner invited, and no peer that the owner revoked.

These rules depend only on offers and the manifest, so everyone applies them alike to offers, plans
and certificates. A minimum reputation is each leader's own view: a leader leaves a peer out of its
plans if it knows that the peer falls short. An unknown peer is admitted.
"""

from __future__ import annotations

from msgspec import UNSET

from protocol.errors import PeerFault
from protocol.identity import PeerId, short
from protocol.messages.offer import Ready, binding_of
from protocol.rules.versions import RULES_4
from protocol.run.manifest import Manifest


def check_admission(manifest: Manifest, peer: PeerId, offer: Ready) -> None:
    """Check that an offer's peer may take part. Bindings are checked elsewhere.

    Raises `PeerFault("not_admitted")` otherwise.
    """
    admission = manifest.admission
    if admission is UNSET:
        return
    if admission.policy == "registered" and binding_of(offer) is None:
        raise PeerFault(
            "not_admitted",
            f"{short(peer)} names no wallet, but this run admits registered nodes only",
        )
    if (
        admission.policy == "allowlist"
        and manifest.rules < RULES_4
        and peer not in admission.allowed
    ):
        raise PeerFault("not_admitted", f"{short(peer)} is not on this run's allowlist")


def falls_short(manifest: Manifest, peer: PeerId, figure: int | None) -> str:
    """Return why a leader leaves `peer` out, or an empty string.

    Args:
        manifest: the run's manifest.
        peer: the peer.
        figure: its reputation; None while the peer is new.
    """
    admission = manifest.admission
    if admission is UNSET or figure is None or figure >= admission.min_reputation:
        return ""
    return (
        f"{short(peer)} has a reputation of {figure}, but this run requires "
        f"{admission.min_reputation}"
    )
