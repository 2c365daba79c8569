"""The card of rewards: it shows what is known, and never denies the pay of a run that pays."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from contracts.devnet.genesis import COIN
from daemon.cli.terminal.status_text import status_text
from daemon.observer.api.dashboard import session_body
from daemon.observer.metrics import metrics_text
from daemon.observer.page import page_html
from daemon.observer.rewards_card import rewards_card
from protocol.journal import JournalEvent, RewardsReport
from protocol.status import Status, StatusState, status_at
from tests.story import AT, day, folded

ACCOUNT, COLD = "0x" + "ab" * 20, "0x" + "cd" * 20
MONEY = RewardsReport(
    at=AT - 5,
    profile="hypergpu",
    pool=str(1000 * COIN),
    epoch=3,
    epoch_ends_at_s=int(AT) + 7200,
    account=ACCOUNT,
    payout=COLD,
    earned=str(20 * COIN),
    claimed=str(5 * COIN),
    claimable=str(15 * COIN),
    pending=str(COIN // 2),
    pending_at_s=int(AT) + 600,
    heartbeat_at_s=int(AT) - 90,
)


def paid(role: str = "node", *more: JournalEvent) -> Status:
    first, *others = day(role)
    return status_at(folded([replace(first, chain="hypergpu"), *others, *more]), AT)


def test_card_says_what_the_account_gets_and_when() -> None:
    card = rewards_card(paid("node", MONEY))
    for words in (
        "1,000 tokens",
        "in 2 h (2023-11-15 00:13 UTC)",
        "15 tokens",
        "hypergpud rewards claim",
        "0.5 tokens",
        "claimable in 10 min",
        "5 tokens claimed",
        COLD,
        "1 min 30 s ago",
    ):
        assert words in card
    assert 'class="card rewards"' in page_html(paid("node", MONEY))


def test_card_of_a_run_that_pays_nothing_is_absent() -> None:
    status = status_at(folded(day()), AT)
    assert rewards_card(status) == ""
    assert status.rewards == "this run pays nothing: it has no chain"
    assert not session_body(status).pays


def test_nothing_says_that_a_run_pays_nothing_before_the_run_is_known() -> None:
    status = status_at(StatusState(), AT)
    assert "pays nothing" not in page_html(status)
    assert "not known" in status.rewards


@pytest.mark.parametrize(
    ("role", "words"),
    [("observer", "set rpc under [chain]"), ("node", "this run pays on hypergpu")],
)
def test_card_without_an_answer_of_the_chain_shows_no_amount(role: str, words: str) -> None:
    status = paid(role)
    card = rewards_card(status)
    assert words in card
    assert " tokens" not in card
    assert "pays nothing" not in page_html(status)
    assert session_body(status).pays


def test_card_of_an_observer_shows_the_pool_alone() -> None:
    pool = replace(MONEY, account="", payout="", earned="", claimed="", claimable="", pending="")
    card = rewards_card(paid("observer", pool))
    assert "1,000 tokens" in card
    assert "then claimable" in card
    assert "Account" not in card


def test_card_shows_why_the_chain_is_silent_beside_the_last_figures() -> None:
    card = rewards_card(paid("node", replace(MONEY, note="the chain does not answer: <refused>")))
    assert "The chain does not answer: &lt;refused&gt;." in card
    assert "1,000 tokens" in card


def test_hostile_amounts_are_shown_as_unknown() -> None:
    card = rewards_card(paid("node", replace(MONEY, claimable="9" * 5000, earned="-1")))
    assert "99999" not in card
    assert card.count("–") == 2


def test_metrics_have_the_money_and_the_last_heartbeat() -> None:
    empty = metrics_text(status_at(StatusState(), AT)).decode()
    assert 'hypergpu_rewards_tokens{state="claimable"} 0.0' in empty
    text = metrics_text(paid("node", MONEY)).decode()
    assert 'hypergpu_rewards_tokens{state="claimable"} 15.0' in text
    assert 'hypergpu_rewards_tokens{state="pending"} 0.5' in text
    assert "hypergpu_last_heartbeat_timestamp_seconds 1.69999991e+09" in text
    assert ACCOUNT not in text


def test_status_on_a_terminal_says_what_is_claimable_and_when_more_comes() -> None:
    text = status_text(paid("node", MONEY), color=False)
    for words in (
        "15 tokens claimable (hypergpud rewards claim), 0.5 tokens more in 10 min",
        "pool: 1,000 tokens, next settlement in 2 h",
    ):
        assert words in text
    assert "tokens" not in status_text(paid("observer"), color=False)
