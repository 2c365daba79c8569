"""The card of a run that pays: its pool, the next settlement, and what this account gets and when.

A run that pays nothing has no card. Where something is not known, the card says so, and never 0.
"""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape

from protocol.status import Status
from protocol.status.figures import MISSING, count, duration, tokens
from protocol.status.reward_records import RewardsSummary, pays

# The last second that a `datetime` can show.
LATEST_S = 253402300799


def rewards_card(status: Status) -> str:
    """Return the card as HTML; empty where the run pays nothing, or is not known yet."""
    if not pays(status.run):
        return ""
    money = status.money
    if money is None or not money.pool:
        rows = [("Chain", status.run.chain, _unknown(status))]
    else:
        rows = [*_of_pool(money, status.as_of), *_of_account(money, status)]
    lines = "".join(
        f"<div><dt>{escape(what)}</dt><dd>{escape(figure)}"
        + (f' <span class="dim">{escape(remark)}</span>' if remark else "")
        + "</dd></div>"
        for what, figure, remark in rows
    )
    note = f'<p class="dim">{escape(_sentence(money.note))}</p>' if money and money.note else ""
    return f'<section class="card rewards"><h2>Rewards</h2><dl>{lines}</dl>{note}</section>'


def _unknown(status: Status) -> str:
    """Say why no amounts are shown."""
    if status.money is not None:
        return "no amounts are known yet"
    if status.you.role == "observer":
        return "no endpoint of it is known here: set rpc under [chain] in config.toml"
    return status.rewards


def _of_pool(money: RewardsSummary, as_of: float) -> list[tuple[str, str, str]]:
    state = "paused: nothing can be claimed" if money.paused else f"on {money.profile}"
    rows = [("Pool", _tokens(money.pool), state)]
    if money.epoch_ends_at_s:
        rows.append(
            ("Next settlement", _in(money.epoch_ends_at_s, as_of), f"of epoch {count(money.epoch)}")
        )
    if money.pending_at_s and not money.account:
        rows.append(("Waiting root", _in(money.pending_at_s, as_of), "then claimable"))
    return rows


def _of_account(money: RewardsSummary, status: Status) -> list[tuple[str, str, str]]:
    if not money.account:
        if status.you.role == "observer":
            return []
        return [("This node", "unpaid", status.rewards)]
    claim = "type hypergpud rewards claim" if money.claimable.strip("0") else ""
    coming = _in(money.pending_at_s, status.as_of) if money.pending_at_s else ""
    waiting = f"claimable {coming}" if money.pending.strip("0") else ""
    paid_to = money.payout if money.payout != money.account else "itself"
    heard = (
        f"{duration(max(0.0, status.as_of - money.heartbeat_at_s))} ago"
        if money.heartbeat_at_s
        else "never"
    )
    return [
        ("Account", money.account, f"pays {paid_to}"),
        ("Claimable", _tokens(money.claimable), claim),
        ("Pending", _tokens(money.pending), waiting),
        ("Earned", _tokens(money.earned), f"{_tokens(money.claimed)} claimed"),
        ("Last heartbeat", heard, ""),
    ]


def _tokens(amount: str) -> str:
    return f"{tokens(int(amount))} tokens" if amount else MISSING


def _in(at_s: float, now: float) -> str:
    """Say when something comes, with the time of day for who reads an old page."""
    moment = datetime.fromtimestamp(min(max(at_s, 0), LATEST_S), UTC)
    left = at_s - now
    return f"{'in ' + duration(left) if left > 0 else 'due'} ({moment:%Y-%m-%d %H:%M} UTC)"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
