"""What `settle` proposes: a root computed here, or another settler's root after a check."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from daemon.chain import settlement
from daemon.chain.datasets import keep_dataset, load_dataset
from daemon.chain.home_runs import certificates_of, run_folder
from daemon.chain.offences import filed_offences
from daemon.chain.rewards import WAIT_S, missing_dataset
from daemon.chain.served_exchange import load_served
from daemon.cli.chain.access import RunAccess
from daemon.cli.invocation import Invocation
from protocol.chain.errors import ChainRefused
from protocol.chain.keccak import address_of
from protocol.chain.port import Chain, PoolStatus, Proposal, SentTransaction
from protocol.errors import PeerFault, UserError
from protocol.settlement.dataset import (
    MAX_DATASET_BYTES,
    Dataset,
    dataset_name,
    decode_dataset,
    make_dataset,
)
from protocol.status.figures import duration


class SettleOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of one `settle`, checked; amounts are in base units."""

    epoch: int | None = None
    pool: int | None = None
    like: Path | None = None
    dispute: str | None = None
    root: str | None = None
    fund: int | None = None
    dry_run: bool = False


class SettleResult(msgspec.Struct, frozen=True, kw_only=True):
    """What `settle --json` prints.

    `done` is "proposed", "activated", "disputed", "shown" or "nothing".
    """

    done: str
    epoch: int
    root: str
    total: str
    pool: str
    accounts: dict[str, str]
    dataset: str
    sanctions: list[str]
    withheld: list[str]
    reason: str


def propose(
    invocation: Invocation, access: RunAccess, chain: Chain, options: SettleOptions
) -> SettleResult:
    """Draft the root, keep its data set, and send it unless this is a dry run.

    Raises `UserError`, `ChainError`.
    """
    status = chain.pool()
    epoch = settlement.epoch_to_settle(status, options.epoch)
    drafted = (
        _draft(invocation, access, chain, status, epoch, options.pool)
        if options.like is None
        else _like(invocation, access, chain, status, options.like)
    )
    keep_dataset(invocation.home, drafted.dataset)
    if not options.dry_run:
        send_and_wait(chain, chain.propose(drafted.proposal))
    done = "shown" if options.dry_run else "proposed"
    return _drafted_result(done, drafted, _next_step(chain, drafted.proposal, options.dry_run))


def send_and_wait(chain: Chain, sent: SentTransaction) -> None:
    """Wait for a transaction. Raises `ChainRefused` where the chain refused it."""
    settled = chain.wait(sent, WAIT_S)
    if not settled.done:
        raise ChainRefused(settled.reason or "the chain gave no reason")


def plain_result(done: str, proposal: Proposal, reason: str) -> SettleResult:
    """Return the result of a step on a root that was not computed here."""
    return SettleResult(
        done=done,
        epoch=proposal.epoch,
        root=proposal.root.hex(),
        total=str(proposal.total),
        pool="0",
        accounts={},
        dataset=proposal.data.hex(),
        sanctions=[],
        withheld=[],
        reason=reason,
    )


def _draft(
    invocation: Invocation,
    access: RunAccess,
    chain: Chain,
    status: PoolStatus,
    epoch: int,
    pool: int | None,
) -> settlement.SettlementDraft:
    run, manifest = access.run.run, access.run.manifest
    certificates = certificates_of(invocation.home, access.run, invocation.say)
    return settlement.draft_settlement(
        chain,
        run,
        manifest,
        certificates,
        _active_dataset(invocation, status),
        epoch=epoch,
        pool=pool,
        offences=filed_offences(run_folder(invocation.home, run)),
        served=load_served(invocation.home, manifest),
    )


def _like(
    invocation: Invocation, access: RunAccess, chain: Chain, status: PoolStatus, like: Path
) -> settlement.SettlementDraft:
    """Another settler's data set as a draft of our own, after it was checked."""
    run, manifest = access.run.run, access.run.manifest
    certificates = certificates_of(invocation.home, access.run, invocation.say)
    dataset = _published(like)
    proposal = Proposal(
        epoch=dataset.epochs[-1].epoch,
        root=dataset.root,
        total=dataset.total,
        data=dataset_name(like.read_bytes()),
    )
    check = settlement.check_root(
        chain, status, "proposed", proposal, dataset, run, manifest, certificates
    )
    if not check.agrees:
        raise UserError(
            "DISAGREES",
            f"The data set {like} does not follow from the certificates.",
            why=check.reason,
            fix="ask the settler who published it",
        )
    # The settler sees which sanctions this vote supports.
    settled = make_dataset(run, manifest, dataset.epochs, certificates)[1]
    pool = int.from_bytes(dataset.epochs[-1].pool, "big")
    return settlement.SettlementDraft(
        proposal=proposal, dataset=dataset, settled=settled, pool=pool
    )


def _next_step(chain: Chain, proposal: Proposal, dry_run: bool) -> str:
    if dry_run:
        return "dry run: nothing sent"
    status = chain.pool()
    if status.pending is None or status.pending.root != proposal.root:
        return f"waits for the votes of {status.needed} of {len(status.settlers)} settlers"
    clock = time.strftime("%H:%M:%S", time.gmtime(status.ready_at_s))
    wait_s = status.ready_at_s - chain.head().at_s
    when = f"from {clock} UTC (in {duration(wait_s)})" if wait_s > 0 else "now"
    return f"pending; anyone can activate it {when}: hypergpud settle"


def _active_dataset(invocation: Invocation, status: PoolStatus) -> Dataset | None:
    """The data set of the active root, which the next root extends; None before the first."""
    if status.pending is not None:
        raise UserError(
            "PENDING",
            f"Epoch {status.pending.epoch} is proposed and not active yet.",
            why="each root extends the one before it",
            fix="hypergpud settle again when its delay is over,"
            " or hypergpud settle --dispute REASON",
        )
    if status.active is None:
        return None
    found = load_dataset(invocation.home, status.active.data)
    if found is None:
        raise missing_dataset(status.active)
    return found


def _published(path: Path) -> Dataset:
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_DATASET_BYTES + 1)
        return decode_dataset(raw, dataset_name(raw))
    except OSError as error:
        raise UserError(
            "DATASET", f"Cannot read {path}.", why=error.strerror or str(error), exit_code=2
        ) from None
    except PeerFault as fault:
        raise UserError(
            "DATASET", f"{path} is not the data set of a settlement.", why=str(fault), exit_code=2
        ) from None


def _drafted_result(done: str, draft: settlement.SettlementDraft, reason: str) -> SettleResult:
    settled = draft.settled
    return msgspec.structs.replace(
        plain_result(done, draft.proposal, reason),
        pool=str(draft.pool),
        accounts={
            address_of(account): str(int.from_bytes(amount, "big"))
            for account, amount in draft.dataset.totals
        },
        sanctions=[
            f"{address_of(one.account)}: {one.step.name.lower()} in epoch {one.epoch},"
            f" {one.reason} (evidence {one.evidence.hex()[:12]})"
            for one in settled.sanctions
        ],
        withheld=[
            f"{address_of(one.account) if one.account else 'no account'}:"
            f" {one.samples} samples, {one.reason}"
            for one in settled.withheld
        ],
    )
