"""What `settle` does: proposes, agrees, activates, disputes or fills the pool, and says what came
of it.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from daemon.chain import settlement
from daemon.chain.amounts import parse_tokens
from daemon.chain.datasets import keep_dataset, load_dataset
from daemon.chain.home_runs import certificates_of, run_folder
from daemon.chain.offences import filed_offences
from daemon.chain.rewards import WAIT_S, missing_dataset
from daemon.cli.chain.access import RunAccess, access, reading, signing, unlocked
from daemon.cli.invocation import Invocation
from protocol.chain.keccak import address_of
from protocol.chain.port import Chain, ChainRefused, PoolStatus, Proposal, SentTransaction
from protocol.errors import PeerFault, UserError
from protocol.settlement.dataset import (
    MAX_DATASET_BYTES,
    Dataset,
    dataset_name,
    decode_dataset,
    make_dataset,
)
from protocol.status.figures import tokens


class SettleOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of one call."""

    epoch: int | None = None
    pool: str | None = None
    like: Path | None = None
    dispute: str | None = None
    root: str | None = None
    fund: str | None = None
    dry_run: bool = False
    run_id: str | None = None
    password_file: Path | None = None


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


def settle(talk: Invocation, wish: SettleOptions) -> None:
    """Raises `UserError`."""
    if wish.root is not None and wish.dispute is None:
        raise UserError(
            "USAGE",
            "--root names the root that --dispute drops.",
            why="without --dispute this command would propose a root",
            fix="hypergpud settle --dispute REASON --root HASH",
            exit_code=2,
        )
    given = access(talk, wish.run_id)
    wanted = None if wish.pool is None else parse_tokens(wish.pool)
    if wish.fund is not None:
        _fund(talk, given, wish, parse_tokens(wish.fund))
        return
    if wish.dry_run:
        with reading(talk, given) as chain:
            _show(talk, _propose(talk, given, chain, wish.epoch, wanted, wish.like, dry_run=True))
        return
    wallet = unlocked(talk, wish.password_file)
    with signing(talk, given, wallet) as chain:
        if wish.dispute is not None:
            _show(talk, _dispute(chain, wish.dispute, wish.root))
            return
        status = chain.pool()
        if status.pending is not None and _is_ready(chain, status):
            _see_through(chain, chain.activate())
            talk.say(f"Epoch {status.pending.epoch} is active: claims are open.")
            if (
                status.pending.epoch >= status.epoch - 1
                and wish.epoch is None
                and wish.like is None
            ):
                _show(talk, _plain("activated", status.pending, "claims are open"))
                return
        _show(talk, _propose(talk, given, chain, wish.epoch, wanted, wish.like, dry_run=False))


def _fund(talk: Invocation, given: RunAccess, wish: SettleOptions, amount: int) -> None:
    with signing(talk, given, unlocked(talk, wish.password_file)) as chain:
        if not wish.dry_run:
            _see_through(chain, chain.fund(amount))
        balance = chain.pool().balance
    if talk.as_json:
        talk.result(
            msgspec.json.encode(
                {"funded": str(0 if wish.dry_run else amount), "pool": str(balance)}
            ).decode()
        )
        return
    talk.result(
        f"{'Nothing was sent' if wish.dry_run else f'{tokens(amount)} put into the pool'}; it holds {tokens(balance)}."
    )


def _propose(
    talk: Invocation,
    given: RunAccess,
    chain: Chain,
    epoch: int | None,
    pool: int | None,
    like: Path | None,
    *,
    dry_run: bool,
) -> SettleResult:
    status = chain.pool()
    certificates = certificates_of(talk.home, given.run, talk.say)
    run, manifest = given.run.run, given.run.manifest
    number = settlement.epoch_to_settle(status, epoch)
    if like is not None:
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
                "The certificates do not give that data set.",
                why=check.reason,
                fix="tell its settler",
            )
        # Whose sanctions one votes for is shown first.
        again = make_dataset(run, manifest, dataset.epochs, certificates)[1]
        draft = settlement.SettlementDraft(
            proposal=proposal,
            dataset=dataset,
            settled=again,
            pool=int.from_bytes(dataset.epochs[-1].pool, "big"),
        )
    else:
        before = _before(talk, status)
        draft = settlement.draft_settlement(
            chain,
            run,
            manifest,
            certificates,
            before,
            epoch=number,
            pool=pool,
            offences=filed_offences(run_folder(talk.home, run)),
        )
    keep_dataset(talk.home, draft.dataset)
    if not dry_run:
        _see_through(chain, chain.propose(draft.proposal))
    return _answer(
        "shown" if dry_run else "proposed", draft, _next_words(chain, draft.proposal, dry_run)
    )


def _next_words(chain: Chain, proposal: Proposal, dry_run: bool) -> str:
    if dry_run:
        return "nothing was sent"
    status = chain.pool()
    if status.pending is not None and status.pending.root == proposal.root:
        return f"pending; from {status.ready_at_s} (unix seconds, the chain's clock) on anyone may activate it: hypergpud settle"
    return f"waits for the votes of {status.needed} of {len(status.settlers)} settlers"


def _before(talk: Invocation, status: PoolStatus) -> Dataset | None:
    if status.pending is not None:
        raise UserError(
            "PENDING",
            f"Epoch {status.pending.epoch} is proposed and not active yet.",
            why="a root stands on the one before it",
            fix="hypergpud settle again when its delay is over, or hypergpud settle --dispute REASON",
        )
    if status.active is None:
        return None
    found = load_dataset(talk.home, status.active.data)
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
            "DATASET", f"{path} cannot be read.", why=error.strerror or str(error), exit_code=2
        ) from None
    except PeerFault as fault:
        raise UserError(
            "DATASET", f"{path} is no data set of a settlement.", why=str(fault), exit_code=2
        ) from None


def _dispute(chain: Chain, reason: str, root: str | None) -> SettleResult:
    """`root` None: the root that is pending now."""
    pending = chain.pool().pending
    if pending is None:
        raise UserError("NOTHING", "No root is pending, so there is none to dispute.")
    if root is not None and not _begins(pending.root, root):
        raise UserError(
            "ROOT",
            f"The pending root is not {root!r}.",
            why=f"epoch {pending.epoch} has {pending.root.hex()} pending; another root may have been disputed and corrected meanwhile",
            fix="hypergpud rewards verify says whether it is right",
        )
    _see_through(chain, chain.dispute(pending, reason, pending.data))
    return _plain("disputed", pending, "the last active root stays in force")


def _begins(whole: bytes, named: str) -> bool:
    digits = named.lower().removeprefix("0x")
    return bool(digits) and whole.hex().startswith(digits)


def _is_ready(chain: Chain, status: PoolStatus) -> bool:
    return chain.head().at_s >= status.ready_at_s


def _see_through(chain: Chain, sent: SentTransaction) -> None:
    settled = chain.wait(sent, WAIT_S)
    if not settled.done:
        raise ChainRefused(settled.reason or "it was not taken")


def _plain(done: str, proposal: Proposal, reason: str) -> SettleResult:
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


def _answer(done: str, draft: settlement.SettlementDraft, reason: str) -> SettleResult:
    settled = draft.settled
    return msgspec.structs.replace(
        _plain(done, draft.proposal, reason),
        pool=str(draft.pool),
        accounts={
            address_of(account): str(int.from_bytes(amount, "big"))
            for account, amount in draft.dataset.totals
        },
        sanctions=[
            f"{address_of(one.account)}: {one.step.name.lower()} in epoch {one.epoch}, {one.reason} (evidence {one.evidence.hex()[:12]})"
            for one in settled.sanctions
        ],
        withheld=[
            f"{address_of(one.account) if one.account else 'nobody'}: {one.samples} samples, {one.reason}"
            for one in settled.withheld
        ],
    )


def _show(talk: Invocation, answer: SettleResult) -> None:
    if talk.as_json:
        talk.result(msgspec.json.encode(answer).decode())
        return
    lines = [
        f"epoch {answer.epoch}: {answer.done}, {answer.reason}",
        f"  root      0x{answer.root}, {tokens(int(answer.total))} in all",
    ]
    if answer.accounts:
        lines.append(f"  pool      {tokens(int(answer.pool))} in this epoch")
        lines += [
            f"  {account}  {tokens(int(amount))}" for account, amount in answer.accounts.items()
        ]
    lines += [f"  sanction  {line}" for line in answer.sanctions] + [
        f"  withheld  {line}" for line in answer.withheld
    ]
    lines.append(f"  data set  {answer.dataset}")
    talk.result("\n".join(lines))
