"""What a settler proposes, and what everybody checks of it: certificates on disk against what the
chain says.

Nothing here sends anything. What a proposal contains beyond certificates is named in it (the
epoch's pool, its last certificate, the silent accounts, offences that were filed), and each of
these is checked as far as it can be: pools against what the chain holds, the silent against the
chain's own events, totals and root by computing them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from daemon.chain.offences import FiledOffence, not_settled
from protocol.certificates.certificate import OpenCertificate
from protocol.chain.keccak import address_of
from protocol.chain.port import Chain, PoolStatus, Proposal
from protocol.digest import Digest
from protocol.errors import UserError
from protocol.run.manifest import Manifest
from protocol.settlement.dataset import (
    Dataset,
    EpochTerms,
    amount_bytes,
    dataset_name,
    encode_dataset,
    make_dataset,
    work_of,
)
from protocol.settlement.totals import SettlementTotals, settle
from protocol.status.figures import tokens


class SettlementDraft(msgspec.Struct, frozen=True, kw_only=True):
    """A settlement ready to be proposed. `name` of the data set is what the proposal carries."""

    proposal: Proposal
    dataset: Dataset
    settled: SettlementTotals
    pool: int  # what this epoch hands out


class _Known(msgspec.Struct, frozen=True, kw_only=True):
    """What one settlement is computed from and checked by: a run's certificates, and the chain that
    it is settled on.
    """

    chain: Chain
    status: PoolStatus
    run: Digest
    manifest: Manifest
    certificates: Sequence[OpenCertificate]


class RootCheck(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a root on the chain follows from the certificates.

    `state` is "active" or "pending".
    """

    state: str
    epoch: int
    root: str
    computed: str
    total: int
    agrees: bool
    reason: str


def epoch_to_settle(pool: PoolStatus, wanted: int | None = None) -> int:
    """The last epoch that is over, or `wanted`. Raises `UserError("EPOCH" | "PAUSED")`."""
    if pool.paused:
        raise UserError(
            "PAUSED",
            "The pool is paused: nothing can be proposed or claimed.",
            fix="ask the pool's owner why",
        )
    last = pool.epoch - 1
    epoch = last if wanted is None else wanted
    settled = pool.active.epoch if pool.active else -1
    if last < 0 and wanted is None:
        raise UserError(
            "EPOCH",
            "Nothing can be settled yet: the chain is in its first epoch, 0.",
            fix="settle it when it is over",
        )
    if epoch > last:
        raise UserError(
            "EPOCH",
            f"Epoch {epoch} is not over: the chain is in epoch {pool.epoch}.",
            fix="settle it when it is over",
        )
    if epoch <= settled:
        raise UserError(
            "EPOCH",
            f"Epoch {epoch} is settled already.",
            why=f"the active root covers everything up to epoch {settled}",
            fix=f"settle epoch {last + 1} when it is over"
            if epoch == last
            else "name a later --epoch, or none",
        )
    return epoch


def epoch_began_s(pool: PoolStatus, epoch: int) -> int:
    """Unix seconds on the chain's clock."""
    return pool.epoch_ends_at_s - pool.epoch_s * (pool.epoch - epoch + 1)


def draft_settlement(
    chain: Chain,
    run: Digest,
    manifest: Manifest,
    certificates: Sequence[OpenCertificate],
    before: Dataset | None,
    *,
    epoch: int,
    pool: int | None,
    offences: Sequence[FiledOffence] = (),
) -> SettlementDraft:
    """The settlement of `epoch` on top of `before` (the active one's data set; None for the first),
    with the `offences` that none before carries.

    `pool` None hands out everything that the contract holds and has promised to nobody. Raises
    `UserError`, `ChainError`.
    """
    status = chain.pool()
    earlier = before.epochs if before else ()
    promised = _promised(run, manifest, earlier, certificates)
    free = status.balance + status.claimed - promised
    hands_out = free if pool is None else pool
    if hands_out <= 0 or hands_out > free:
        raise UserError(
            "POOL",
            f"The pool cannot hand out {tokens(hands_out)} in epoch {epoch}.",
            why=f"it holds {tokens(status.balance)}, of which {tokens(status.balance - free)} is promised already",
            fix="hypergpud settle --fund TOKENS, or name a smaller --pool",
        )
    told = tuple(one.term for one in not_settled(offences, earlier))
    terms = EpochTerms(
        epoch=epoch, pool=amount_bytes(hands_out), tip=certificates[-1].hash, offences=told
    )
    known = _Known(
        chain=chain, status=status, run=run, manifest=manifest, certificates=certificates
    )
    *_, silent = _silent_by_chain(known, (*earlier, terms))
    try:
        dataset, settled = make_dataset(
            run, manifest, (*earlier, msgspec.structs.replace(terms, silent=silent)), certificates
        )
    except ValueError as error:
        raise UserError("NOTHING", "There is nothing to propose.", why=str(error)) from None
    name = dataset_name(encode_dataset(dataset))
    return SettlementDraft(
        proposal=Proposal(epoch=epoch, root=dataset.root, total=dataset.total, data=name),
        dataset=dataset,
        settled=settled,
        pool=hands_out,
    )


def check_root(
    chain: Chain,
    pool: PoolStatus,
    state: str,
    proposal: Proposal,
    dataset: Dataset,
    run: Digest,
    manifest: Manifest,
    certificates: Sequence[OpenCertificate],
) -> RootCheck:
    """Compute the root again, and who was silent, and compare.

    Raises `UserError("CERTIFICATES_MISSING")`, `ChainError`.
    """
    computed = ""
    if dataset.run != run:
        reason = "its data set is of another run"
    else:
        try:
            again, _ = make_dataset(run, manifest, dataset.epochs, certificates)
        except ValueError as error:
            reason = f"it pays, and by the certificates {error}"
        else:
            computed = again.root.hex()
            known = _Known(
                chain=chain, status=pool, run=run, manifest=manifest, certificates=certificates
            )
            reason = _difference(proposal, dataset, again) or _wrong_silence(known, dataset.epochs)
    return RootCheck(
        state=state,
        epoch=proposal.epoch,
        root=proposal.root.hex(),
        computed=computed,
        total=proposal.total,
        agrees=not reason,
        reason=reason
        or f"{len(dataset.totals)} accounts, recomputed from {len(certificates)} certificates and the chain's heartbeats: the same root",
    )


def _difference(proposal: Proposal, dataset: Dataset, again: Dataset) -> str:
    if again != dataset:
        wrong = [
            (name, amount)
            for name, amount in again.totals
            if dataset.total_of(name) != int.from_bytes(amount, "big")
        ]
        if wrong:
            account, amount = wrong[0]
            said = dataset.total_of(account)
            return f"{address_of(account)} has earned {int.from_bytes(amount, 'big')} by the certificates, and the data set says {said}"
        return "the data set pays accounts that earned nothing, or is for another chain or contract"
    if (proposal.root, proposal.total) != (again.root, again.total):
        return "the root on the chain is not that of its data set"
    if proposal.epoch != again.epochs[-1].epoch:
        return f"the chain says epoch {proposal.epoch}, the data set ends with {again.epochs[-1].epoch}"
    return ""


def _promised(
    run: Digest,
    manifest: Manifest,
    epochs: Sequence[EpochTerms],
    certificates: Sequence[OpenCertificate],
) -> int:
    """What earlier epochs gave, locked or not. What they could not hand out is free again."""
    if not epochs or isinstance(manifest.settlement, msgspec.UnsetType):
        return 0
    settled = settle(work_of(run, manifest, epochs, certificates), manifest.settlement.rules)
    return settled.total + sum(settled.locked.values())


def _silent_by_chain(known: _Known, epochs: Sequence[EpochTerms]) -> Iterator[tuple[bytes, ...]]:
    """For each epoch, the accounts with work in it, or with work that may still wait, that neither
    registered nor beat since the settlement before.

    From the end of the last settled epoch (the pool's begin, for the first) to the end of this one,
    by the chain's events: whoever asks, and whenever, gets the same. Raises `ChainError`.
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


def _wrong_silence(known: _Known, epochs: Sequence[EpochTerms]) -> str:
    """What a data set says wrongly of who was silent, "" where the chain agrees."""
    numbers = [terms.epoch for terms in epochs]
    if numbers != sorted(set(numbers)):
        return f"its epochs are not in order: {numbers}"
    for terms, silent in zip(epochs, _silent_by_chain(known, epochs), strict=True):
        if heard := set(terms.silent) - set(silent):
            return f"epoch {terms.epoch}: {address_of(min(heard))} is called silent, and the chain heard of it or it did not work"
        if missed := set(silent) - set(terms.silent):
            return f"epoch {terms.epoch}: {address_of(min(missed))} is paid, and the chain did not hear of it"
    return ""
