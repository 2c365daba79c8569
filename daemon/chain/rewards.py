"""The answers of `hypergpud rewards`.

They say what an account earned, how much of it is claimable, and whether the chain's roots follow
from certificates.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from daemon.chain.datasets import load_dataset
from daemon.chain.home_runs import HomeRun, certificates_of
from daemon.chain.offences import SanctionSummary, sanctions_of
from daemon.chain.served_work import ServedWork
from daemon.chain.settlement import RootCheck, check_root
from protocol.chain.account_binding import wallet_of_offer
from protocol.chain.errors import ChainPending, ChainRefused
from protocol.chain.keccak import Address, account_bytes
from protocol.chain.port import Chain, PoolStatus, Proposal, SettledTransaction
from protocol.errors import UserError
from protocol.settlement.dataset import Dataset, proof_for, work_of
from protocol.settlement.receipts import receipts_of
from protocol.settlement.totals import settle
from protocol.status.figures import tokens

# How the contracts' reason ends if an unrelated account sends a claim.
NOT_OURS = "not the account or its sponsor"
# The time limit for a transaction: 40 blocks of Plumise.
WAIT_S = 120.0


class Rewards(msgspec.Struct, frozen=True, kw_only=True):
    """An account's money, as `rewards --json` prints it.

    Amounts are base units as text. `earned` is the total in the active root, and `pending` is what
    the pending root adds. `certified` counts the samples that no settlement contains yet.
    `sanctions` are those of all accounts in the run. `served_tokens` and `served_answers` are what
    this home's stages served, by receipts that clients signed.
    """

    account: str
    payout: str
    profile: str
    epoch: int
    active_epoch: int
    earned: str
    claimed: str
    claimable: str
    pending: str
    pending_at_s: int
    locked: str
    certified: int
    sanctions: tuple[SanctionSummary, ...]
    served_tokens: int
    served_answers: int
    note: str


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a claim.

    `id` is the account and its total, so it is the same however often the claim is made.
    """

    id: str
    account: str
    payout: str
    amount: str
    fee: str
    net: str
    sent: bool
    transaction: str
    reason: str


def rewards_of(
    chain: Chain, home: Path, run: HomeRun, account: Address, tell: Callable[[str], None]
) -> Rewards:
    """Return an account's money. `tell` receives damage. Raises `ChainError`."""
    pool = chain.pool()
    active = _dataset(home, pool.active)
    pending = _dataset(home, pool.pending)
    claimed = chain.claimed(account)
    earned, proof = proof_for(active, account) if active else (0, ())
    claimable = chain.claimable(account, earned, proof) if earned else 0
    coming = max(0, (proof_for(pending, account)[0] if pending else earned) - earned)
    served = ServedWork(home, tell).models()
    agent = chain.agent(account)
    locked, certified, sanctions = _beyond(home, run, pending or active, account, tell)
    missing = [
        one.data.hex()[:12]
        for one, found in ((pool.active, active), (pool.pending, pending))
        if one and not found
    ]
    return Rewards(
        account=account,
        payout=agent.payout if int(agent.payout, 16) else account,
        profile=chain.profile,
        epoch=pool.epoch,
        active_epoch=pool.active.epoch if pool.active else -1,
        earned=str(earned),
        claimed=str(claimed),
        claimable=str(claimable),
        pending=str(coming),
        pending_at_s=pool.ready_at_s if pool.pending else 0,
        locked=str(locked),
        certified=certified,
        sanctions=sanctions,
        served_tokens=sum(model.tokens for model in served),
        served_answers=sum(model.requests for model in served),
        note=_note(pool, missing, agent.registered),
    )


def verify(chain: Chain, home: Path, run: HomeRun, tell: Callable[[str], None]) -> list[RootCheck]:
    """Compute the active and the pending root again, and compare.

    `tell` receives a sentence about damaged certificates. Raises `ChainError` or `UserError`.
    """
    pool = chain.pool()
    proposals = [
        (state, one)
        for state, one in (("active", pool.active), ("pending", pool.pending))
        if one is not None
    ]
    if not proposals:
        raise UserError(
            "NO_ROOT",
            "Nothing is settled yet: the chain has no root.",
            fix="a settler types: hypergpud settle",
        )
    certificates = certificates_of(home, run, tell)
    checks = []
    for state, proposal in proposals:
        dataset = load_dataset(home, proposal.data)
        if dataset is None:
            raise missing_dataset(proposal)
        checks.append(
            check_root(chain, pool, state, proposal, dataset, run.run, run.manifest, certificates)
        )
    return checks


def claim(
    chain: Chain,
    home: Path,
    account: Address,
    *,
    dry_run: bool,
    threshold: int = 0,
    tell: Callable[[str], None] = lambda _: None,
) -> Claimed:
    """Claim what the active root gives `account`.

    The account's own wallet sends the claim, or its sponsor's. The payout address is paid. A second
    claim sends nothing and pays nothing. Raises `UserError` or `ChainError`.
    """
    pool = chain.pool()
    if pool.active is None:
        raise UserError(
            "NO_ROOT",
            "Nothing is claimable: no root is active yet.",
            why="earnings are claimable once a settlement is active",
        )
    dataset = load_dataset(home, pool.active.data)
    if dataset is None:
        raise missing_dataset(pool.active)
    total, proof = proof_for(dataset, account)
    amount = chain.claimable(account, total, proof) if total else 0
    agent = chain.agent(account)
    answer = Claimed(
        id=f"{account}:{total}",
        account=account,
        payout=agent.payout if int(agent.payout, 16) else account,
        amount=str(amount),
        fee="0",
        net=str(amount),
        sent=False,
        transaction="",
        reason="",
    )
    if not amount:
        why = (
            f"all {tokens(total)} earned up to epoch {pool.active.epoch} are claimed"
            if total
            else f"nothing is earned up to epoch {pool.active.epoch}"
        )
        return msgspec.structs.replace(answer, reason=why)
    if amount < threshold:
        return msgspec.structs.replace(
            answer, reason=f"{tokens(amount)} is below the threshold of {tokens(threshold)}"
        )
    if dry_run:
        return msgspec.structs.replace(answer, reason="dry run: nothing was sent")
    before = chain.claimed(account)
    try:
        sent = chain.claim(account, total, proof)
    except ChainRefused as error:
        raise (
            _not_ours(account, chain.account) if error.reason.endswith(NOT_OURS) else error
        ) from None
    tell(f"Sent {sent.hash}; waiting for the chain.")
    try:
        settled = chain.wait(sent, WAIT_S)
    except ChainPending:
        return msgspec.structs.replace(
            answer,
            sent=True,
            transaction=sent.hash,
            reason="not settled yet; type: hypergpud rewards, in a while",
        )
    return _settled(answer, settled, chain.claimed(account) - before)


def _not_ours(account: Address, wallet: Address) -> UserError:
    return UserError(
        "CLAIM",
        f"Only the wallet of {account} can claim its rewards.",
        why=f"this home's wallet is {wallet}; another wallet could claim just before the "
        "account changes its payout address",
        fix="type hypergpud rewards claim in the home of that wallet, or let that wallet call the "
        "agent registry's approve_sponsor for this one",
    )


def _settled(answer: Claimed, settled: SettledTransaction, paid: int) -> Claimed:
    if not settled.done:
        raise ChainRefused(settled.reason or "the transaction was not included")
    reason = (
        "paid"
        if paid == int(answer.amount)
        else f"paid {tokens(paid)}: the rest was claimed before"
    )
    return msgspec.structs.replace(
        answer,
        amount=str(paid),
        fee=str(settled.fee),
        net=str(paid - settled.fee if answer.account == answer.payout else paid),
        sent=True,
        transaction=settled.hash or settled.sent.hash,
        reason=reason,
    )


def missing_dataset(proposal: Proposal) -> UserError:
    """Make the error for a data set that the home lacks."""
    return UserError(
        "DATASET",
        f"The data set of epoch {proposal.epoch} ({proposal.data.hex()[:12]}) is not in this home.",
        why="the settlers publish data sets to the swarm, and a running node fetches them",
        fix="run hypergpud start for a minute while the chain is reachable, then try again",
    )


def _dataset(home: Path, proposal: Proposal | None) -> Dataset | None:
    return load_dataset(home, proposal.data) if proposal else None


def _beyond(
    home: Path, run: HomeRun, dataset: Dataset | None, account: Address, tell: Callable[[str], None]
) -> tuple[int, int, tuple[SanctionSummary, ...]]:
    """Return what the last data set locks, the samples certified since, and its sanctions."""
    rules, own = run.manifest.settlement, account_bytes(account)
    try:
        certificates = certificates_of(home, run, tell)
        work = work_of(run.run, run.manifest, dataset.epochs if dataset else (), certificates)
    except UserError:
        # The home lacks certificates. The chain's own figures are shown without them.
        return 0, 0, ()
    if isinstance(rules, msgspec.UnsetType):
        return 0, 0, ()
    seen = {receipt.key for one in work for receipt in one.receipts}
    counted = [
        receipt
        for certificate in certificates
        for receipt in receipts_of(
            certificate, lambda peer, offer: wallet_of_offer(run.manifest, peer, offer)
        )
    ]
    fresh = {
        receipt.key: receipt.samples
        for receipt in counted
        if receipt.account == own and receipt.key not in seen
    }
    sanctions = sanctions_of(run.run, run.manifest, dataset, certificates) if dataset else ()
    return settle(work, rules.rules).locked.get(own, 0), sum(fresh.values()), sanctions


def _note(pool: PoolStatus, missing: list[str], registered: bool) -> str:
    notes = []
    if pool.paused:
        notes.append("the pool is paused")
    if not registered:
        notes.append("this account is not registered: start the node with its wallet unlocked")
    if missing:
        notes.append(f"this home lacks data set {', '.join(missing)}, so its amounts show as 0")
    return "; ".join(notes)
