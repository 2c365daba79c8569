"""The messages of a refused or slow step of a session."""

from __future__ import annotations

import re

import pytest

from daemon.chain.sessions import REFUSALS, explained
from protocol.chain.errors import ChainRefused
from protocol.chain.port import RunStatus
from tests.daemon.chain import homes
from tests.daemon.chain.session_checks import ANNA, BERT, CONTRACT, PUBLISHED, on_chain, says
from tests.daemon.chain.stage import ROUNDS, Stage
from tests.protocol.settlement.paid import PAID_RUN, wallet


def test_every_refusal_says_why_and_what_to_type_and_changes_nothing(stage: Stage) -> None:
    stage.home(ANNA)
    stage.home(BERT)
    steps = {"activate": (), "complete": (), "cancel": ("--reason", "nobody came")}
    for name, more in steps.items():
        says(
            stage.say(ANNA, "session", name, *more),
            1,
            "has no session for this run",
            "hypergpud session create",
            "[SESSION]",
        )
    assert on_chain(stage).state == "none"

    assert stage.say(ANNA, "session", "create").code == 0
    says(
        stage.say(ANNA, "session", "create"),
        1,
        "exists already",
        "which is created",
        "hypergpud session activate",
    )
    for name, more in steps.items():
        says(
            stage.say(BERT, "session", name, *more),
            1,
            "has no session for this run",
            "use the owner's home",
        )
    says(stage.say(ANNA, "session", "complete"), 1, "not active yet", "hypergpud session activate")
    assert on_chain(stage).state == "created"

    assert stage.say(ANNA, "session", "activate").code == 0
    says(stage.say(ANNA, "session", "activate"), 1, "active already", "hypergpud session complete")
    assert stage.say(ANNA, "session", "complete").code == 0
    for name, more in steps.items():
        says(
            stage.say(ANNA, "session", name, *more),
            1,
            "completed already",
            ROUNDS[1].hash.hex()[:12],
            "for another session, make another run",
        )
    assert (on_chain(stage).state, on_chain(stage).certificate) == ("completed", ROUNDS[1].hash)


def test_what_is_slow_is_not_sent_twice_and_what_others_did_first_is_told(stage: Stage) -> None:
    world = stage.world
    if not isinstance(world, homes.FakeWorld):
        pytest.skip("only the fake chain can be stopped")
    stage.home(ANNA)
    world.ledger.stopped = True
    says(stage.say(ANNA, "session", "create"), 6, "[CHAIN_PENDING]", "hypergpud session show")
    world.ledger.stopped = False
    world.pass_time(10)
    assert stage.say(ANNA, "session", "activate").code == 0

    # A complete is on its way when another one names another certificate.
    world.ledger.stopped = True
    says(stage.say(ANNA, "session", "complete"), 6, "[CHAIN_PENDING]")
    go_on_when_waited_for(world)
    says(
        stage.say(ANNA, "session", "complete", "--certificate", ROUNDS[0].hash.hex()),
        1,
        "[CERTIFICATE]",
        ROUNDS[1].hash.hex()[:12],
    )
    assert on_chain(stage).certificate == ROUNDS[1].hash


def test_a_refusal_that_comes_with_the_block_is_told_in_the_same_words(stage: Stage) -> None:
    """Two homes with one wallet: the other one was quicker by a block."""
    world = stage.world
    if not isinstance(world, homes.FakeWorld):
        pytest.skip("only the fake chain can be stopped")
    stage.home(ANNA)
    assert stage.say(ANNA, "session", "create").code == 0
    world.ledger.stopped = True
    other = world.client(wallet(ANNA).private_key())
    other.cancel_run(PAID_RUN, "it is over")
    go_on_when_waited_for(world)
    says(
        stage.say(ANNA, "session", "activate"),
        1,
        "This run is cancelled already",
        "for another session, make another run",
    )


def test_a_stranger_who_was_first_is_in_nobodys_way(stage: Stage) -> None:
    stage.home(ANNA)
    bert = stage.world.client(wallet(BERT).private_key())
    assert bert.wait(bert.create_run(PAID_RUN, PUBLISHED), 10).done
    assert stage.say(ANNA, "session", "create").code == 0
    assert stage.say(ANNA, "session", "activate").code == 0
    assert on_chain(stage).state == "active"


def go_on_when_waited_for(world: homes.FakeWorld) -> None:
    waited = world.sleep

    def sleep(seconds: float) -> None:
        world.ledger.stopped = False
        waited(seconds)

    world.sleep = sleep  # type: ignore[method-assign]


def test_every_refusal_of_the_contract_has_words_and_no_other_has() -> None:
    assert set(re.findall(r'"(sessions: [^"]+)"', CONTRACT.read_text())) == set(REFUSALS)
    now = RunStatus(run=PAID_RUN, state="active", owner=wallet(ANNA).address)
    for reason in REFUSALS:
        words = explained(reason, now)
        assert reason not in str(words)
        assert getattr(words, "why", "")
        assert getattr(words, "fix", "")
    foreign = explained("insufficient funds for transfer", now)
    assert isinstance(foreign, ChainRefused)
    assert foreign.reason == "insufficient funds for transfer"
