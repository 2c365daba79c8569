"""Asks the run's chain regularly what its pool holds, and what this node's account has there.

The page and the metrics show it. Training never waits for it, and it signs nothing: it needs an
endpoint of the chain, and no wallet.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import trio

from daemon.chain.datasets import load_dataset
from protocol.chain.errors import ChainError
from protocol.chain.keccak import Address
from protocol.chain.port import Chain, Proposal
from protocol.errors import UserError
from protocol.journal import JournalEvent, RewardsReport
from protocol.ports.offload import Offload
from protocol.settlement.dataset import proof_for

LOOK_S = 60.0
"""Between two looks. Epochs last for hours, and a look costs an endpoint ten calls."""


def money_on_chain(chain: Chain, home: Path, account: Address | None) -> RewardsReport:
    """Return what the chain holds for an account; without one, what it holds in all. Blocks.

    The data sets of settlements come from `home`; `note` names what it lacks.

    Raises `ChainError` or `UserError`.
    """
    pool = chain.pool()
    report = RewardsReport(
        profile=chain.profile,
        pool=str(pool.balance),
        epoch=pool.epoch,
        epoch_ends_at_s=pool.epoch_ends_at_s,
        paused=pool.paused,
        pending_at_s=pool.ready_at_s if pool.pending is not None else 0,
    )
    if account is None:
        return report
    agent, claimed = chain.agent(account), chain.claimed(account)
    earned, claimable, pending, notes = 0, 0, 0, []
    if not agent.registered:
        notes.append("this account is not registered yet")
    settled = _proof(home, pool.active, account)
    if settled is not None:
        earned, proof = settled
        claimable = chain.claimable(account, earned, proof) if earned else 0
    coming = _proof(home, pool.pending, account)
    if coming is not None:
        pending = max(0, coming[0] - earned)
    lacks = [
        one.data.hex()[:12]
        for one, found in ((pool.active, settled), (pool.pending, coming))
        if one is not None and found is None
    ]
    if lacks:
        notes.append(
            f"the data set {' and '.join(lacks)} has not arrived yet, so its amounts are missing"
        )
    return msgspec.structs.replace(
        report,
        account=account,
        payout=agent.payout if int(agent.payout, 16) else account,
        earned=str(earned),
        claimed=str(claimed),
        claimable=str(claimable),
        pending=str(pending),
        heartbeat_at_s=agent.last_heartbeat_s,
        note="; ".join(notes),
    )


def _proof(
    home: Path, proposal: Proposal | None, account: Address
) -> tuple[int, tuple[bytes, ...]] | None:
    """Return the account's total in a root, with its proof; None where the home cannot tell."""
    dataset = load_dataset(home, proposal.data) if proposal is not None else None
    if dataset is None:
        return None
    total, proof = proof_for(dataset, account)
    return total, tuple(proof)


async def watch_rewards(
    look: Callable[[], RewardsReport],
    record: Callable[[JournalEvent], None],
    offload: Offload,
    every_s: float = LOOK_S,
) -> None:
    """Record what `look` returns, until cancelled.

    While the chain does not answer, the last figures stay, and `note` says why.
    """
    last: RewardsReport | None = None
    while True:
        try:
            last = await offload(look)
        except ChainError as error:
            last = _silent(last, f"the chain does not answer: {error}")
        except UserError as error:
            last = _silent(last, error.what)
        if last is not None:
            record(last)
        await trio.sleep(every_s)


def _silent(last: RewardsReport | None, why: str) -> RewardsReport:
    known = last or RewardsReport(profile="")
    return msgspec.structs.replace(known, note=why)
