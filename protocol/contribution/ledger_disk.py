"""The ledger's way to disk and back."""

from __future__ import annotations

from protocol.contribution.ledger import Ledger
from protocol.contribution.offer import offer_from_disk
from protocol.digest import Digest
from protocol.errors import InvariantBroken
from protocol.ports.disk_records import LedgerMark, LedgerRecord


def ledger_record(ledger: Ledger, run: Digest, tip: Digest) -> LedgerRecord:
    """The ledger's record for the disk.

    The record shares the ledger's vectors: write it before you change the ledger.
    """
    nothing = ledger.residue[:0]
    return LedgerRecord(
        run=run,
        tip=tip,
        next_seq=ledger.next_seq,
        weight=ledger.weight,
        carried=ledger.carried,
        offered_seq=ledger.offer.seq,
        offered_weight=ledger.offer.weight,
        offered_digest=ledger.offer.digest,
        offered=ledger.offer.encoded,
        residue=ledger.residue,
        samples=ledger.samples,
        displacement=ledger.displacement if ledger.samples else nothing,
        later_samples=ledger.later_samples,
        later=nothing if ledger.later is None else ledger.later,
        drawn=ledger.drawn,
        rounds=ledger.rounds,
        later_rounds=ledger.later_rounds,
        sent=ledger.sent.records(),
    )


def ledger_mark(ledger: Ledger, tip: Digest, *, sent: bool) -> LedgerMark:
    """The ledger's mark for the disk.

    `sent` says whether an offer before the current one was sent that the ledger on disk lacks.
    """
    return LedgerMark(
        tip=tip,
        next_seq=ledger.next_seq,
        offered_seq=ledger.offer.seq,
        offered_weight=ledger.offer.weight,
        offered_digest=ledger.offer.digest,
        pending=ledger.pending,
        drawn=ledger.drawn,
        sent=sent,
    )


def restore_ledger(ledger: Ledger, record: LedgerRecord, *, offer_sent: bool = True) -> None:
    """Restore the ledger from disk.

    Args:
        record: the record on disk.
        offer_sent: whether its offer may have been sent.

    Raises:
        InvariantBroken: the record is of another model.
    """
    if record.residue.shape != ledger.residue.shape:
        raise InvariantBroken(
            f"the ledger on disk has {record.residue.size} parameters, "
            f"the run's model {ledger.residue.size}"
        )
    ledger.residue[:] = record.residue
    ledger.weight, ledger.next_seq, ledger.carried = record.weight, record.next_seq, record.carried
    ledger.drawn, ledger.rounds, ledger.later_rounds = (
        record.drawn,
        record.rounds,
        record.later_rounds,
    )
    ledger.grew = bool(record.samples) and not record.offered_seq
    if record.samples:
        ledger.displacement[:] = record.displacement
        ledger.samples = record.samples
    if record.later_samples:
        ledger.later, ledger.later_samples = record.later.copy(), record.later_samples
    ledger.sent.restore(record.sent, ledger.codec)
    if record.offered_seq:
        ledger.offer = offer_from_disk(
            ledger.codec,
            seq=record.offered_seq,
            weight=record.offered_weight,
            encoded=record.offered,
            name=record.offered_digest,
        )
        ledger.offer_sent = offer_sent or bool(record.later_samples)
