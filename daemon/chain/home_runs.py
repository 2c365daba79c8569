"""The runs of a home, for commands that run beside a daemon: manifests and certificates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import UNSET

from daemon.disk.atomic import no_fault, write_atomically
from daemon.disk.chain_file import ChainFile
from daemon.swarm.chain_sync import unpack_record
from protocol.certificates.certificate import OpenCertificate, open_certificate
from protocol.digest import Digest
from protocol.errors import PeerFault, UserError
from protocol.membership.owner_record import OwnerRecords
from protocol.messages.base import UNREADABLE
from protocol.run.manifest import MAX_MANIFEST_BYTES, Manifest, SignedManifest
from protocol.settlement.history import CertifiedHistory

MANIFEST_FILE = "manifest"
RECORDS_FILE = "owner-records"
MOST_RECORD_BYTES = 1 << 20
# How often the certificates are read. A daemon in the middle of a write looks like damage once, and
# not twice.
LOOKS = 2


class HomeRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a home."""

    run: Digest
    manifest: Manifest


def keep_manifest(home: Path, signed: SignedManifest) -> None:
    """Keep a run's manifest, which commands need to read its certificates. Raises `DiskFull`."""
    path = run_folder(home, signed.run) / MANIFEST_FILE
    whole = msgspec.msgpack.encode(signed)
    try:
        with path.open("rb") as stream:
            # The folder is named after the manifest's digest, so an intact manifest never changes.
            if stream.read(len(whole) + 1) == whole:
                return
    except OSError:
        # It is missing or unreadable, so it is written again.
        pass
    write_atomically(path, [memoryview(whole)])


def runs_of(home: Path) -> list[HomeRun]:
    """Return every run whose manifest can be read, the most recently written first."""
    found: list[tuple[float, HomeRun]] = []
    for path in home.glob(f"runs/*/{MANIFEST_FILE}"):
        try:
            with path.open("rb") as stream:
                signed = msgspec.msgpack.decode(
                    stream.read(MAX_MANIFEST_BYTES + 1024), type=SignedManifest
                )
            certificates = path.with_name("certificates")
            written = certificates.stat().st_mtime if certificates.exists() else 0.0
            if signed.run.hex() == path.parent.name:
                found.append((written, HomeRun(run=signed.run, manifest=signed.open())))
        except (OSError, UserError, *UNREADABLE):
            # Another version wrote the manifest, or it is damaged. That run's daemon reports it.
            continue
    return [run for _, run in sorted(found, key=lambda one: one[0], reverse=True)]


def settled_run(home: Path, named: str | None) -> HomeRun:
    """Return the run whose id begins with `named`, or else the last one settled on a chain.

    Raises `UserError("RUN")`.
    """
    runs = [one for one in runs_of(home) if one.run.hex().startswith((named or "").lower())]
    paid = [one for one in runs if one.manifest.settlement is not UNSET]
    if paid:
        return paid[0]
    if runs:
        raise UserError(
            "RUN",
            f"The run {runs[0].manifest.name!r} pays nothing: its manifest names no settlement.",
            fix="join a run that is settled on a chain, or write chain and [settlement] into your "
            "own run's file",
            exit_code=2,
        )
    which = f"no run whose id begins with {named!r}" if named else "no run"
    raise UserError(
        "RUN",
        f"There is {which} in {home}.",
        fix="hypergpud start, then try again",
        exit_code=2,
    )


def certificates_of(home: Path, run: HomeRun, report: Callable[[str], None]) -> CertifiedHistory:
    """Read a run's certificates and its owner's recoveries.

    Raises `UserError("NO_CERTIFICATES")` if there is no certificate.
    """
    opened = certificates_on_disk(home, run, report)
    if not opened:
        raise UserError(
            "NO_CERTIFICATES",
            f"No round of the run {run.manifest.name!r} is certified yet.",
            why="there is nothing to add up",
        )
    return CertifiedHistory(run.run, opened, owner_records_of(home, run).recoveries)


def owner_records_of(home: Path, run: HomeRun) -> OwnerRecords:
    """Return the owner's records that this home holds; a damaged file counts as none."""
    records = OwnerRecords(run.run, run.manifest.owner)
    try:
        with (run_folder(home, run.run) / RECORDS_FILE).open("rb") as stream:
            records.add_encoded(stream.read(MOST_RECORD_BYTES))
    except (OSError, PeerFault):
        # Other nodes have the records, and give them back.
        return records
    return records


def certificates_on_disk(
    home: Path, run: HomeRun, report: Callable[[str], None]
) -> list[OpenCertificate]:
    """Read all certificates, oldest first. The node verified them before it wrote them.

    `report` receives a sentence about damage. The certificates from the damage on are left out.
    """
    damage: list[str] = []
    records: list[bytes] = []
    for _ in range(LOOKS):
        damage.clear()
        records = ChainFile(
            run_folder(home, run.run) / "certificates", no_fault, damage.append
        ).read(1, 1 << 40)
        if not damage:
            break
    for words in damage:
        report(words)
    return [
        certificate
        for record in records
        for certificate in opened_record(record, run.run, run.manifest)
    ]


def opened_record(record: bytes, run: Digest, manifest: Manifest) -> list[OpenCertificate]:
    """Decode the certificates in one record of the chain on disk.

    The node verified them before it wrote them. Raises `PeerFault` for other bytes.
    """
    return [
        open_certificate(raw, run, manifest, None, trusted=True) for raw in unpack_record(record)
    ]


def run_folder(home: Path, run: Digest) -> Path:
    """Return the folder of a run's files."""
    return home / "runs" / run.hex()
