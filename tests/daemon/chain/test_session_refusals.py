"""The messages of a refused or slow step of a session."""

from __future__ import annotations

import re

import pytest

from daemon.chain.sessions import REFUSALS, explained
from protocol.chain.errors import ChainRefused
from protocol.chain.port import RunStatus
from tests.daemon.chain import paid_homes
from tests.daemon.chain.command_runner import ROUNDS, CommandRunner
from tests.daemon.chain.session_checks import ANNA, BERT, CONTRACT, PUBLISHED, on_chain, says
from tests.protocol.settlement.paid import PAID_RUN, wallet


def test_every_refusal_has_a_reason_and_a_fix_and_changes_nothing(
    commands: CommandRunner,
) -> None:
    commands.home(ANNA)
    commands.home(BERT)
    steps = {"activate": (), "complete": (), "cancel": ("--reason", "nobody came")}
    for name, more in steps.items():
        says(
            commands.run(ANNA, "session", name, *more),
            1,
            "has no session for this run",
            "hypergpud session create",
            "[SESSION]",
        )
    assert on_chain(commands).state == "none"

    assert commands.run(ANNA, "session", "create").code == 0
    says(
        commands.run(ANNA, "session", "create"),
        1,
        "exists already",
        "which is created",
        "hypergpud session activate",
    )
    for name, more in steps.items():
        says(
            commands.run(BERT, "session", name, *more),
            1,
            "has no session for this run",
            "use the owner's home",
        )
    says(
        commands.run(ANNA, "session", "complete"), 1, "not active yet", "hypergpud session activate"
    )
    assert on_chain(commands).state == "created"

    assert commands.run(ANNA, "session", "activate").code == 0
    says(
        commands.run(ANNA, "session", "activate"), 1, "active already", "hypergpud session complete"
    )
    assert commands.run(ANNA, "session", "complete").code == 0
    for name, more in steps.items():
        says(
            commands.run(ANNA, "session", name, *more),
            1,
            "completed already",
            ROUNDS[1].hash.hex()[:12],
            "for another session, make another run",
        )
    assert (on_chain(commands).state, on_chain(commands).certificate) == (
        "completed",
        ROUNDS[1].hash,
    )


def test_a_slow_step_is_not_sent_twice_and_steps_of_others_are_reported(
    commands: CommandRunner,
) -> None:
    world = commands.world
    if not isinstance(world, paid_homes.SimulatedChain):
        pytest.skip("only the fake chain can be stopped")
    commands.home(ANNA)
    world.ledger.stopped = True
    says(commands.run(ANNA, "session", "create"), 6, "[CHAIN_PENDING]", "hypergpud session show")
    world.ledger.stopped = False
    world.pass_time(10)
    assert commands.run(ANNA, "session", "activate").code == 0

    # A pending `complete` is followed by one with another certificate.
    world.ledger.stopped = True
    says(commands.run(ANNA, "session", "complete"), 6, "[CHAIN_PENDING]")
    go_on_when_waited_for(world)
    says(
        commands.run(ANNA, "session", "complete", "--certificate", ROUNDS[0].hash.hex()),
        1,
        "[CERTIFICATE]",
        ROUNDS[1].hash.hex()[:12],
    )
    assert on_chain(commands).certificate == ROUNDS[1].hash


def test_a_refusal_in_a_block_has_the_same_message(
    commands: CommandRunner,
) -> None:
    """Two homes have one wallet, and the other home's transaction comes one block earlier."""
    world = commands.world
    if not isinstance(world, paid_homes.SimulatedChain):
        pytest.skip("only the fake chain can be stopped")
    commands.home(ANNA)
    assert commands.run(ANNA, "session", "create").code == 0
    world.ledger.stopped = True
    other = world.client(wallet(ANNA).private_key())
    other.cancel_run(PAID_RUN, "it is over")
    go_on_when_waited_for(world)
    says(
        commands.run(ANNA, "session", "activate"),
        1,
        "This run is cancelled already",
        "for another session, make another run",
    )


def test_a_run_that_a_stranger_created_first_blocks_no_owner(commands: CommandRunner) -> None:
    commands.home(ANNA)
    bert = commands.world.client(wallet(BERT).private_key())
    assert bert.wait(bert.create_run(PAID_RUN, PUBLISHED), 10).done
    assert commands.run(ANNA, "session", "create").code == 0
    assert commands.run(ANNA, "session", "activate").code == 0
    assert on_chain(commands).state == "active"


def go_on_when_waited_for(world: paid_homes.SimulatedChain) -> None:
    waited = world.sleep

    def sleep(seconds: float) -> None:
        world.ledger.stopped = False
        waited(seconds)

    world.sleep = sleep  # type: ignore[method-assign]


def test_every_refusal_of_the_contract_has_a_message() -> None:
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
