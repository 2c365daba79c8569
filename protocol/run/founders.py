"""The founders of a run: the peers whose votes certify its first round (rules 4 and later).

A run file may list them. Else `hypergpud start` makes its own node the founder and the owner.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from protocol.errors import PeerFault, UserError
from protocol.identity import PeerId, public_key_of
from protocol.rules.versions import RULES_4
from protocol.run.manifest_parts import MAX_FOUNDERS, Trust

if TYPE_CHECKING:
    from protocol.run.manifest import Manifest


def check_founders(manifest: Manifest) -> None:
    """Check the fields of rules 4, which earlier rules do not have.

    Raises:
        ValueError: for a founder that is no peer id or stands twice, and for earlier rules.
    """
    if manifest.rules >= RULES_4:
        _check_ids(manifest.founders)
    elif manifest.founders or manifest.initial or manifest.trust != Trust():
        later = "founders" if manifest.founders else "initial" if manifest.initial else "trust"
        raise ValueError(f"rules {manifest.rules} do not have {later}")
    elif manifest.admits == "invite":
        raise ValueError(f'rules {manifest.rules} do not have admission.policy = "invite"')


def _check_ids(founders: Sequence[PeerId]) -> None:
    if len(set(founders)) < len(founders):
        raise ValueError("founders lists a peer twice; each founder has one vote")
    for founder in founders:
        try:
            public_key_of(founder)
        except PeerFault as fault:
            raise ValueError(f"founders lists no peer id: {fault}") from None


def with_founders(manifest: Manifest, founders: Iterable[PeerId]) -> Manifest:
    """Return the manifest with these founders, in the order of their ids.

    A manifest that names founders, or that has rules without votes, stays as it is. Of more than
    `MAX_FOUNDERS` peers the first are founders; the others get votes by the rules of the run.
    """
    if manifest.rules < RULES_4 or manifest.founders:
        return manifest
    return replace(manifest, founders=tuple(sorted(set(founders))[:MAX_FOUNDERS]))


def founded_by(manifest: Manifest, peer: PeerId) -> Manifest:
    """Return the run that `peer` begins with a file: without founders, it is founder and owner."""
    if manifest.rules < RULES_4 or manifest.founders:
        return manifest
    return replace(manifest, founders=(peer,), owner=manifest.owner or peer)


def missing_for_start(manifest: Manifest) -> str:
    """Return why no run can begin with this manifest; empty where one can."""
    if manifest.rules < RULES_4:
        return ""
    if not manifest.founders:
        return (
            f"a run of rules {manifest.rules} needs founders, whose votes certify its first round"
        )
    if manifest.admits == "invite" and not manifest.owner:
        return 'admission.policy = "invite" needs an owner, who signs the invitations'
    return ""


def check_complete(manifest: Manifest) -> None:
    """Raises `UserError("MANIFEST")` for a manifest that no run can begin with."""
    if missing := missing_for_start(manifest):
        raise UserError(
            "MANIFEST",
            f"The manifest of run {manifest.name!r} is not complete.",
            why=missing,
            fix="hypergpud start --run FILE   (makes this node the run's founder and owner)",
            exit_code=2,
        )
