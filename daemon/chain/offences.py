"""Offences that a settler filed, kept in the home until a settlement carries them.

Each has its reason and the digest of its evidence. An offence that certificates prove (two offers
under one number) needs no filing. Any other offence is a settler's word. The other settlers see it,
with the digest, before they agree to a root. The evidence is kept under its digest, so that it can
be shown to anyone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from daemon.disk.atomic import write_atomically
from protocol.certificates.certificate import OpenCertificate
from protocol.chain.account_binding import wallet_of_offer
from protocol.chain.keccak import Address, account_bytes, address_of, checked_address
from protocol.digest import Digest, digest
from protocol.errors import UserError
from protocol.run.manifest import Manifest
from protocol.settlement.dataset import Dataset, EpochTerms, work_of
from protocol.settlement.receipts import receipts_of
from protocol.settlement.sanctions import NEVER, Sanction
from protocol.settlement.totals import settle

FILE = "offences"
EVIDENCE_FOLDER = "evidence"
# In the largest group, the signed pieces that prove a wrong sum have 20 MB.
MAX_EVIDENCE_BYTES = 64 << 20
# A data set carries them for ever, and each has 100 bytes.
MAX_FILED = 1024
_EVIDENCE = b"hypergpu/evidence/filed/1\0"


class FiledOffence(msgspec.Struct, frozen=True, kw_only=True):
    """One offence that a settler filed.

    `evidence` is the digest in hex, and `samples` is the number of samples to deduct.
    """

    account: str
    reason: Annotated[str, Meta(min_length=1, max_length=256)]
    evidence: str
    samples: Annotated[int, Meta(ge=0, le=(1 << 62))]

    @property
    def term(self) -> tuple[bytes, Digest, str, int]:
        """The offence in the form of an epoch's terms."""
        return account_bytes(self.account), bytes.fromhex(self.evidence), self.reason, self.samples


class SanctionSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A sanction as `rewards` shows it.

    `epoch` is the chain's epoch. `state` says how long it lasts after the last settlement.
    """

    account: str
    step: str
    epoch: int
    state: str
    samples: int
    reason: str
    evidence: str


def filed_offences(folder: Path) -> list[FiledOffence]:
    """Read the offences of a run, oldest first. Raises `UserError("OFFENCES")` for damage."""
    path = folder / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[FiledOffence])
    except FileNotFoundError:
        return []
    except (msgspec.DecodeError, ValueError) as error:
        raise UserError(
            "OFFENCES",
            f"{path} is damaged.",
            why=str(error),
            fix="repair or remove it, and file the offences again",
        ) from None


def file_offence(
    home: Path, folder: Path, account: Address, reason: str, evidence: Path, samples: int
) -> FiledOffence:
    """File an offence with its evidence.

    Filing it again changes its reason and samples. Raises `UserError` or `DiskFull`.
    """
    try:
        with evidence.open("rb") as stream:
            raw = stream.read(MAX_EVIDENCE_BYTES + 1)
    except OSError as error:
        raise UserError(
            "EVIDENCE", f"{evidence} cannot be read.", why=error.strerror or str(error), exit_code=2
        ) from None
    if not 0 < len(raw) <= MAX_EVIDENCE_BYTES:
        raise UserError(
            "EVIDENCE",
            f"{evidence} must have 1 byte to {MAX_EVIDENCE_BYTES >> 20} MB.",
            exit_code=2,
        )
    name = digest(_EVIDENCE, raw).hex()
    try:
        made = msgspec.convert(
            {"account": account, "reason": reason, "evidence": name, "samples": samples},
            FiledOffence,
        )
    except msgspec.ValidationError as error:
        raise UserError(
            "SANCTION", "The offence cannot be filed.", why=str(error), exit_code=2
        ) from None
    others = [
        one
        for one in filed_offences(folder)
        if (one.account, one.evidence) != (made.account, made.evidence)
    ]
    if len(others) >= MAX_FILED:
        raise UserError(
            "SANCTION",
            f"{MAX_FILED} offences are filed already.",
            fix="hypergpud sanction --withdraw EVIDENCE",
        )
    write_atomically(home / EVIDENCE_FOLDER / name, [memoryview(raw)])
    _save(folder, [*others, made])
    return made


def withdraw(folder: Path, evidence: str) -> list[FiledOffence]:
    """Remove the offences whose evidence begins with `evidence`, and return them.

    What a settlement carries already stays there.
    """
    found = [
        one
        for one in filed_offences(folder)
        if evidence and one.evidence.startswith(evidence.lower())
    ]
    if not found:
        raise UserError(
            "SANCTION",
            f"No filed offence has evidence that begins with {evidence!r}.",
            fix="hypergpud sanction",
            exit_code=2,
        )
    _save(folder, [one for one in filed_offences(folder) if one not in found])
    return found


def not_settled(
    offences: Sequence[FiledOffence], epochs: Sequence[EpochTerms]
) -> tuple[FiledOffence, ...]:
    """Return the offences that no earlier epoch carries."""
    carried = {
        (account, evidence) for epoch in epochs for account, evidence, _, _ in epoch.offences
    }
    return tuple(one for one in offences if one.term[:2] not in carried)


def account_of(who: str, manifest: Manifest, certificates: Sequence[OpenCertificate]) -> Address:
    """Find an account by its address, or by the beginning of the peer id that worked for it.

    Raises `UserError`.
    """
    if who.startswith("0x"):
        try:
            return checked_address(who)
        except ValueError as error:
            raise UserError(
                "ADDRESS", f"{who!r} is not an address.", why=str(error), exit_code=2
            ) from None
    receipts = [
        receipt
        for certificate in certificates
        for receipt in receipts_of(
            certificate, lambda peer, offer: wallet_of_offer(manifest, peer, offer)
        )
        if receipt.account is not None and receipt.peer.startswith(who)
    ]
    accounts = {receipt.account for receipt in receipts if receipt.account}
    if len(accounts) != 1:
        what = "No certificate counts work" if not accounts else f"{len(accounts)} accounts work"
        raise UserError(
            "SANCTION",
            f"{what} for a peer that begins with {who!r}.",
            fix="name the account: 0x...",
            exit_code=2,
        )
    return address_of(accounts.pop())


def sanctions_of(
    run: Digest, manifest: Manifest, dataset: Dataset, certificates: Sequence[OpenCertificate]
) -> tuple[SanctionSummary, ...]:
    """Return every sanction of a settlement, oldest first.

    Raises `UserError("CERTIFICATES_MISSING")`.
    """
    if isinstance(manifest.settlement, msgspec.UnsetType):
        return ()
    settled = settle(
        work_of(run, manifest, dataset.epochs, certificates), manifest.settlement.rules
    )
    return tuple(_shown(one, dataset) for one in settled.sanctions)


def _shown(one: Sanction, dataset: Dataset) -> SanctionSummary:
    left = one.until - len(dataset.epochs)
    if one.until == NEVER:
        state = "for ever"
    elif one.until == 0:
        state = "samples deducted"
    else:
        state = f"earns nothing in the next {left} epochs" if left > 0 else "over, on probation"
    return SanctionSummary(
        account=address_of(one.account),
        step=one.step.name.lower(),
        epoch=dataset.epochs[one.epoch].epoch,
        state=state,
        samples=one.samples,
        reason=one.reason,
        evidence=one.evidence.hex(),
    )


def _save(folder: Path, offences: Sequence[FiledOffence]) -> None:
    write_atomically(folder / FILE, [memoryview(msgspec.json.encode(offences))])
