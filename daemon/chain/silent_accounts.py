"""Which accounts worked in an epoch and sent no heartbeat, by the chain's events.

Their work waits, or lapses. A data set names them, and everyone checks the names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from protocol.certificates.certificate import OpenCertificate
from protocol.chain.keccak import address_of
from protocol.chain.port import Chain, PoolStatus
from protocol.digest import Digest
from protocol.run.manifest import Manifest
from protocol.settlement.dataset import EpochTerms, work_of


class SettlementInputs(msgspec.Struct, frozen=True, kw_only=True):
    """The inputs of one settlement: a run's certificates, and the chain it is settled on."""

    chain: Chain
    status: PoolStatus
    run: Digest
    manifest: Manifest
    certificates: Sequence[OpenCertificate]


def epoch_began_s(pool: PoolStatus, epoch: int) -> int:
    """Return when an epoch began, in unix seconds of the chain's clock."""
    return pool.epoch_ends_at_s - pool.epoch_s * (pool.epoch - epoch + 1)


def silent_by_chain(
    known: SettlementInputs, epochs: Sequence[EpochTerms]
) -> Iterator[tuple[bytes, ...]]:
    """Yield each epoch's silent accounts: those with work that the chain did not hear from.

    Work counts in its epoch and while it may still be held. The chain's events count from the last
    settled epoch's end (or the pool's start) to the end of this epoch. The answer is therefore the
    same for every caller at any time. Raises `ChainError`.
    """
    settlement = known.manifest.settlement
    held = 0 if isinstance(settlement, msgspec.UnsetType) else settlement.rules.held_epochs
    work = work_of(known.run, known.manifest, epochs, known.certificates)
    worked = [
        {receipt.account for receipt in one.receipts if receipt.account is not None} for one in work
    ]
    since = 0
    for index, terms in enumerate(epochs):
        asked = {
            account: address_of(account)
            for some in worked[max(0, index - held) : index + 1]
            for account in some
        }
        between = epoch_began_s(known.status, since), epoch_began_s(known.status, terms.epoch + 1)
        heard = known.chain.heard(list(asked.values()), *between)
        yield tuple(sorted(account for account, address in asked.items() if address not in heard))
        since = terms.epoch + 1


def wrong_silence(known: SettlementInputs, epochs: Sequence[EpochTerms]) -> str:
    """Say where a data set's silent accounts differ from the chain's; "" if they agree."""
    numbers = [terms.epoch for terms in epochs]
    if numbers != sorted(set(numbers)):
        return f"its epochs are not in order: {numbers}"
    for terms, silent in zip(epochs, silent_by_chain(known, epochs), strict=True):
        if heard := set(terms.silent) - set(silent):
            return (
                f"epoch {terms.epoch}: {address_of(min(heard))} is listed as silent, but the chain "
                "heard from it, or it did no work"
            )
        if missed := set(silent) - set(terms.silent):
            return (
                f"epoch {terms.epoch}: {address_of(min(missed))} is paid, but the chain did not "
                "hear from it"
            )
    return ""
