"""What a home holds of its own membership in a run: its proof, and the owner's records.

    <home>/runs/<run>/invitation       the proof that the owner invited this node
    <home>/runs/<run>/owner-records    what the owner signed since the run began
    <home>/runs/<run>/owner-records.lock   held while the file before is read and written

With the proof, a second start needs no token.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from daemon.chain.home_runs import MOST_RECORD_BYTES, RECORDS_FILE, run_folder
from daemon.disk.atomic import disk_full, make_private_directory, write_atomically
from protocol.digest import Digest
from protocol.errors import PeerFault, UserError
from protocol.identity import PeerId, short
from protocol.membership.invitation import OwnInvitation, make_proof
from protocol.membership.invitation_token import Invitation, check_expiry, check_token
from protocol.membership.owner_record import OwnerRecords
from protocol.messages.base import UNREADABLE, Signed
from protocol.run.manifest import Manifest, SignedManifest
from protocol.text.printable import printable

PROOF_FILE = "invitation"
RECORDS_LOCK = "owner-records.lock"
CERTIFICATES_FILE = "certificates"
_MOST_BYTES = 1 << 20


class KeptProof(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """The content of the proof's file."""

    proof: bytes
    # The history of the run must contain this certificate.
    certificate: bytes


def accept_invitation(
    home: Path, signed: SignedManifest, invitation: Invitation, peer: PeerId, now_s: float
) -> None:
    """Check an invitation for the run of a verified manifest, and keep this node's proof.

    Raises:
        UserError: "INVITATION" for one of another run or owner, or one that expired.
        DiskFull: where the proof cannot be written.
    """
    grant = check_token(invitation, signed.run, signed.open().owner)
    check_expiry(grant, now_s)
    kept = KeptProof(
        proof=make_proof(invitation.grant, invitation.secret, signed.run, peer),
        certificate=grant.certificate,
    )
    data = msgspec.msgpack.encode(kept)
    write_atomically(run_folder(home, signed.run) / PROOF_FILE, [memoryview(data)])


def load_own_invitation(home: Path, run: Digest) -> OwnInvitation:
    """Return what this node brings to a run as an invited one."""
    try:
        with (run_folder(home, run) / PROOF_FILE).open("rb") as stream:
            kept = msgspec.msgpack.decode(stream.read(_MOST_BYTES), type=KeptProof)
    except (OSError, *UNREADABLE):
        return OwnInvitation()
    return OwnInvitation(
        proof=kept.proof, required=None if has_certificates(home, run) else kept.certificate
    )


def has_certificates(home: Path, run: Digest) -> bool:
    """Whether this home has followed the run."""
    try:
        return (run_folder(home, run) / CERTIFICATES_FILE).stat().st_size > 0
    except OSError:
        return False


def check_invited(home: Path, signed: SignedManifest, peer: PeerId) -> None:
    """Raises `UserError("NOT_INVITED")` where a run by invitation cannot admit this node.

    A node that has followed the run asks its members: they may know it.
    """
    manifest = signed.open()
    if (
        manifest.admits != "invite"
        or is_named(manifest, peer)
        or load_own_invitation(home, signed.run).proof
        or has_certificates(home, signed.run)
    ):
        return
    raise UserError(
        "NOT_INVITED",
        f"The run {printable(manifest.name)!r} admits only peers that its owner invited.",
        why=f"this node ({short(peer)}) has no invitation from {short(manifest.owner)}, the owner",
        fix="ask the owner for a line from  hypergpud invite  and type: "
        "hypergpud start --join INVITATION",
        exit_code=2,
    )


def check_not_revoked(home: Path, signed: SignedManifest, peer: PeerId) -> None:
    """Raises `UserError("REVOKED")` where this home knows that the owner revoked this node."""
    if peer in load_owner_records(home, signed).revoked:
        raise revoked_error(signed.open(), peer)


def revoked_error(manifest: Manifest, peer: PeerId) -> UserError:
    """Return the error of a node that the run's owner revoked."""
    return UserError(
        "REVOKED",
        f"The owner of the run {printable(manifest.name)!r} revoked this node, so it stops.",
        why=f"{short(manifest.owner)} signed the revocation of {short(peer)}, which holds for good",
        fix="talk to the owner; to begin a run of your own: hypergpud start --run FILE",
    )


def is_named(manifest: Manifest, peer: PeerId) -> bool:
    """Whether the manifest itself names a peer as its owner or as a founder."""
    return peer == manifest.owner or peer in manifest.founders


def load_owner_records(home: Path, signed: SignedManifest) -> OwnerRecords:
    """Return the owner's records that this home holds; a damaged file counts as none."""
    records = OwnerRecords(signed.run, signed.open().owner)
    read_owner_records(home, records, signed.run)
    return records


def read_owner_records(home: Path, records: OwnerRecords, run: Digest) -> None:
    """Add what the file holds to `records`."""
    try:
        with (run_folder(home, run) / RECORDS_FILE).open("rb") as stream:
            records.add_encoded(stream.read(MOST_RECORD_BYTES))
    except (OSError, PeerFault):
        # Other nodes have the records, and give them back.
        return


@contextmanager
def owner_records_turn(home: Path, run: Digest) -> Iterator[None]:
    """Exclude other processes of this home, and other threads, from the owner's records.

    Two commands that read the file and then write it would lose what the other one signed, or sign
    two orders with one serial. Blocks for moments. Raises `DiskFull` where the home cannot be
    written.
    """
    folder = run_folder(home, run)
    try:
        make_private_directory(folder)
        handle = os.open(folder / RECORDS_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise disk_full(folder / RECORDS_LOCK, 0, error) from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            raise disk_full(folder / RECORDS_LOCK, 0, error) from None
        yield
    finally:
        os.close(handle)


def save_owner_records(home: Path, records: OwnerRecords, run: Digest) -> None:
    """Write the records down, and add to them what the file holds beside. Raises `DiskFull`."""
    with owner_records_turn(home, run):
        read_owner_records(home, records, run)
        write_owner_records(home, records, run)


def write_owner_records(home: Path, records: OwnerRecords, run: Digest) -> None:
    """Write the records as they are, inside of `owner_records_turn`. Raises `DiskFull`."""
    write_atomically(run_folder(home, run) / RECORDS_FILE, [memoryview(records.encode())])


def add_owner_record(home: Path, signed: SignedManifest, record: Signed) -> bool:
    """Keep a record that the owner of this home has just signed. Returns whether it is new.

    A running node finds it in the file within a second, and passes it on.

    Raises:
        PeerFault: where the owner of the run did not sign it.
        DiskFull: where it cannot be written.
    """
    with owner_records_turn(home, signed.run):
        records = load_owner_records(home, signed)
        if records.add(record) is None:
            return False
        write_owner_records(home, records, signed.run)
    return True
