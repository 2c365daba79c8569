"""The invitations that a run's owner has made, in the folder of the run.

The file holds the tokens, so that the owner can print one again. Only its user can read it. The
node writes down how often each was used, as the certificates say.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec.structs import replace

from daemon.chain.home_runs import run_folder
from daemon.disk.atomic import write_atomically
from protocol.digest import Digest
from protocol.errors import UserError
from protocol.identity import PeerId, Signer
from protocol.membership.invitation import Grant, sign_grant
from protocol.membership.invitation_token import (
    Invitation,
    decode_token,
    encode_token,
    entrances_of,
)
from protocol.messages.base import UNREADABLE
from protocol.run.manifest import SignedManifest

INVITATIONS_FILE = "invitations.json"
MOST_KEPT = 256
"""The invitations that a home keeps, the newest; a revocation needs no kept invitation."""

DAY_S = 86_400.0
LASTS_S = 7 * DAY_S
_MOST_BYTES = 1 << 20


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What the owner asks of an invitation."""

    uses: int = 1
    voters: int = 1
    lasts_s: float = LASTS_S


class MadeInvitation(msgspec.Struct, frozen=True, kw_only=True):
    """One invitation, its token, and how often it was used."""

    serial: int
    # The id of its one-time key.
    name: PeerId
    uses: int
    voters: int
    # Unix time.
    expires_s: float
    token: str
    used: int = 0
    revoked: bool = False

    def is_usable(self, now_s: float) -> bool:
        """Whether it still admits a peer."""
        return self.used < self.uses and not self.revoked and now_s < self.expires_s


class InvitationFile(msgspec.Struct, frozen=True, kw_only=True):
    """The content of the file, the newest invitation last."""

    made: tuple[MadeInvitation, ...] = ()
    next_serial: int = 1


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """Where a friend finds the run, and the certificate that its history must contain."""

    addresses: tuple[str, ...]
    certificate: Digest


def load_invitations(home: Path, run: Digest) -> InvitationFile:
    """Return the invitations of a run; none where the file is missing or unreadable."""
    try:
        with (run_folder(home, run) / INVITATIONS_FILE).open("rb") as stream:
            return msgspec.json.decode(stream.read(_MOST_BYTES), type=InvitationFile)
    except (OSError, *UNREADABLE):
        return InvitationFile()


def make_invitation(
    home: Path, run: SignedManifest, owner: Signer, entry: Entry, terms: Terms, now_s: float
) -> MadeInvitation:
    """Make and keep a new invitation. Raises `DiskFull`."""
    kept = load_invitations(home, run.run)
    secret = os.urandom(32)
    grant = Grant(
        key=Signer(secret).public_key,
        serial=kept.next_serial,
        uses=terms.uses,
        voters=terms.voters,
        expires_s=int(now_s + terms.lasts_s),
        certificate=entry.certificate,
    )
    invitation = Invitation(
        run=run.run,
        grant=sign_grant(owner, run.run, grant),
        secret=secret,
        entrances=entrances_of(entry.addresses),
    )
    made = MadeInvitation(
        serial=grant.serial,
        name=grant.name,
        uses=grant.uses,
        voters=grant.voters,
        expires_s=grant.expires_s,
        token=encode_token(invitation),
    )
    _save(home, run.run, replace(kept, made=(*kept.made, made), next_serial=made.serial + 1))
    return made


def usual_invitation(
    home: Path, run: SignedManifest, owner: Signer, entry: Entry, now_s: float
) -> MadeInvitation:
    """Return the newest usable invitation of the usual terms, with the present addresses.

    Makes one where there is none. Raises `DiskFull`.
    """
    kept, usual = load_invitations(home, run.run), Terms()
    for one in reversed(kept.made):
        if (one.uses, one.voters) == (usual.uses, usual.voters) and one.is_usable(now_s):
            return _readdressed(home, run.run, kept, one, entry)
    return make_invitation(home, run, owner, entry, usual, now_s)


def _readdressed(
    home: Path, run: Digest, kept: InvitationFile, one: MadeInvitation, entry: Entry
) -> MadeInvitation:
    """Return the invitation with other addresses: they are not signed, and may have changed."""
    try:
        invitation = decode_token(one.token)
    except UserError:
        return one
    entrances = entrances_of(entry.addresses)
    if not entrances or entrances == invitation.entrances:
        return one
    now = replace(one, token=encode_token(replace(invitation, entrances=entrances)))
    made = tuple(now if other.serial == one.serial else other for other in kept.made)
    _save(home, run, replace(kept, made=made))
    return now


def last_addresses(home: Path, run: Digest) -> tuple[str, ...]:
    """Return the addresses in the newest invitation, for an owner whose node does not run."""
    for one in reversed(load_invitations(home, run).made):
        try:
            return decode_token(one.token).addresses
        except UserError:
            continue
    return ()


def note_uses(
    home: Path, run: Digest, used: Mapping[PeerId, int], revoked: Iterable[PeerId]
) -> None:
    """Write down how often each invitation was used, by name. Raises `DiskFull`."""
    kept, gone = load_invitations(home, run), frozenset(revoked)
    made = tuple(
        replace(
            one,
            used=max(one.used, used.get(one.name, 0)),
            revoked=one.revoked or one.name in gone,
        )
        for one in kept.made
    )
    if made != kept.made:
        _save(home, run, replace(kept, made=made))


def _save(home: Path, run: Digest, content: InvitationFile) -> None:
    content = replace(content, made=content.made[-MOST_KEPT:])
    data = msgspec.json.format(msgspec.json.encode(content)) + b"\n"
    write_atomically(run_folder(home, run) / INVITATIONS_FILE, [memoryview(data)])


def certificate_of(tip: str, run: Digest) -> Digest:
    """Return the certificate that a status shows as its tip; the genesis before the first."""
    return bytes.fromhex(tip) if len(tip) == 2 * len(run) else run


def join_command(token: str) -> str:
    """Return what a friend types."""
    return f"hypergpud start --join {token}"


def terms_of(made: MadeInvitation) -> str:
    """Say what an invitation grants, in one line."""
    left = made.uses - made.used
    peers = "one peer" if left == 1 else f"{left} peers"
    votes = "" if made.voters == 1 else f" with {made.voters} votes"
    until = datetime.fromtimestamp(made.expires_s, UTC)
    return (
        f"Invitation {made.serial}: for {peers}{votes}, until {until:%Y-%m-%d %H:%M} UTC. "
        "Anyone who has the line can use it. More: hypergpud invite"
    )
