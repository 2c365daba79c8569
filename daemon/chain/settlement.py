"""A settler's proposal, and everyone's check of it: certificates on disk against the chain.

Nothing here sends a transaction. A proposal names everything that certificates do not contain: the
epoch's pool, its last certificate, the silent accounts, and filed offences. Each is checked as far
as possible: pools against what the contract holds, silent accounts against the chain's events, and
totals and roots by computing them again.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from daemon.chain.offences import FiledOffence, not_settled
from daemon.chain.silent_accounts import SettlementInputs, silent_by_chain, wrong_silence
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
from protocol.settlement.history import last_in_lineage, taken_back
from protocol.settlement.served import ServedReceipt, fresh_served
from protocol.settlement.totals import SettlementTotals, settle
from protocol.status.figures import tokens

# A root that is active was settled before; a later recovery does not take it back.
ACTIVE = "active"


class SettlementDraft(msgspec.Struct, frozen=True, kw_only=True):
    """A settlement that is ready to be proposed. `pool` is what the epoch hands out."""

    proposal: Proposal
    dataset: Dataset
    settled: SettlementTotals
    pool: int


class RootCheck(msgspec.Struct, frozen=True, kw_only=True):
    """The result of checking whether a root on the chain follows from the certificates.

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
    """Return `wanted`, or the last epoch that is over. Raises `UserError("EPOCH" | "PAUSED")`."""
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
            "Nothing can be settled yet: the chain is in its first epoch.",
            fix="try again when the epoch is over",
        )
    if epoch > last:
        raise UserError(
            "EPOCH",
            f"Epoch {epoch} is not over yet: the chain is in epoch {pool.epoch}.",
            fix="try again when the epoch is over",
        )
    if epoch <= settled:
        raise UserError(
            "EPOCH",
            f"Epoch {epoch} is settled already.",
            why=f"the active root covers everything up to epoch {settled}",
            fix=f"settle epoch {last + 1} once it is over"
            if epoch == last
            else "name a later --epoch, or none",
        )
    return epoch


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
    served: Sequence[ServedReceipt] = (),
) -> SettlementDraft:
    """Draft the settlement of `epoch`.

    Args:
        before: the active settlement's data set; None for the first settlement.
        pool: what the epoch hands out; None hands out everything that is not allocated yet.
        served: receipts of serving that this home has; only new ones are paid.
        offences: filed offences; those that an earlier settlement carries are left out.

    Raises `UserError` or `ChainError`.
    """
    status = chain.pool()
    earlier = before.epochs if before else ()
    allocated = _allocated(run, manifest, earlier, certificates)
    free = status.balance + status.claimed - allocated
    hands_out = free if pool is None else pool
    if hands_out <= 0 or hands_out > free:
        raise UserError(
            "POOL",
            f"The pool cannot hand out {tokens(hands_out)} in epoch {epoch}.",
            why=f"it holds {tokens(status.balance)}, and {tokens(status.balance - free)} are "
            "allocated to earlier epochs",
            fix="hypergpud settle --fund TOKENS, or name a smaller --pool",
        )
    fresh = tuple(one.term for one in not_settled(offences, earlier))
    last = last_in_lineage(certificates)
    if last is None:
        raise UserError(
            "NOTHING",
            "There is nothing to propose.",
            why="the run's owner took every certificate back",
        )
    terms = EpochTerms(
        epoch=epoch,
        pool=amount_bytes(hands_out),
        tip=last.hash,
        offences=fresh,
        served=fresh_served(manifest, (one.served for one in earlier), served),
    )
    known = SettlementInputs(
        chain=chain, status=status, run=run, manifest=manifest, certificates=certificates
    )
    *_, silent = silent_by_chain(known, (*earlier, terms))
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
    """Compute a root and its silent accounts again, and compare.

    Raises `UserError("CERTIFICATES_MISSING")` or `ChainError`.
    """
    computed = ""
    if dataset.run != run:
        reason = "its data set belongs to another run"
    elif state != ACTIVE and taken_back(certificates, dataset.epochs[-1].tip):
        reason = "it ends with a certificate that the run's owner took back"
    else:
        try:
            again, _ = make_dataset(run, manifest, dataset.epochs, certificates)
        except ValueError as error:
            reason = f"it pays, but by the certificates {error}"
        else:
            computed = again.root.hex()
            known = SettlementInputs(
                chain=chain, status=pool, run=run, manifest=manifest, certificates=certificates
            )
            reason = _difference(proposal, dataset, again) or wrong_silence(known, dataset.epochs)
    return RootCheck(
        state=state,
        epoch=proposal.epoch,
        root=proposal.root.hex(),
        computed=computed,
        total=proposal.total,
        agrees=not reason,
        reason=reason
        or f"the same root: {len(dataset.totals)} accounts, recomputed from "
        f"{len(certificates)} certificates and the chain's heartbeats",
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
            return (
                f"{address_of(account)} earned {int.from_bytes(amount, 'big')} by the "
                f"certificates, but the data set says {dataset.total_of(account)}"
            )
        return (
            "the data set pays accounts that earned nothing, "
            "or belongs to another chain or contract"
        )
    if (proposal.root, proposal.total) != (again.root, again.total):
        return "the root on the chain is not its data set's"
    if proposal.epoch != again.epochs[-1].epoch:
        return (
            f"the chain says epoch {proposal.epoch}, but the data set ends with "
            f"{again.epochs[-1].epoch}"
        )
    return ""


def _allocated(
    run: Digest,
    manifest: Manifest,
    epochs: Sequence[EpochTerms],
    certificates: Sequence[OpenCertificate],
) -> int:
    """Return what earlier epochs gave, locked or not. What they could not hand out is free."""
    if not epochs or isinstance(manifest.settlement, msgspec.UnsetType):
        return 0
    settled = settle(work_of(run, manifest, epochs, certificates), manifest.settlement.rules)
    return settled.total + sum(settled.locked.values())
