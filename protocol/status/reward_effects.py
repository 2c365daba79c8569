"""How reports of the chain change the state behind a status."""

from __future__ import annotations

from protocol import journal
from protocol.status.event_text import describe
from protocol.status.figures import clean, natural, whole
from protocol.status.reward_records import RewardsSummary
from protocol.status.state import MAX_NAME_CHARS, MAX_TEXT_CHARS, StatusState

MAX_AMOUNT_DIGITS = 78
"""Digits of the largest integer of a chain, 2^256."""


def chain_report(state: StatusState, event: journal.ChainReport) -> None:
    _, sentence = describe(event)
    state.rewards = sentence


def rewards_report(state: StatusState, event: journal.RewardsReport) -> None:
    state.money = RewardsSummary(
        as_of_s=natural(event.at),
        profile=clean(event.profile, MAX_NAME_CHARS),
        pool=_amount(event.pool),
        epoch=whole(event.epoch),
        epoch_ends_at_s=whole(event.epoch_ends_at_s),
        paused=event.paused,
        pending_at_s=whole(event.pending_at_s),
        account=clean(event.account, MAX_NAME_CHARS),
        payout=clean(event.payout, MAX_NAME_CHARS),
        earned=_amount(event.earned),
        claimed=_amount(event.claimed),
        claimable=_amount(event.claimable),
        pending=_amount(event.pending),
        heartbeat_at_s=whole(event.heartbeat_at_s),
        note=clean(event.note, MAX_TEXT_CHARS),
    )


def _amount(text: str) -> str:
    """Return an amount in base units, or an empty string for text that is none."""
    return text if text.isascii() and text.isdecimal() and len(text) <= MAX_AMOUNT_DIGITS else ""
