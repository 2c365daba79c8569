"""The verdict: one sentence for each situation a node or an observer can be in."""

from __future__ import annotations

import subprocess
import sys

import msgspec

from protocol import journal
from protocol.status import Status, status_at
from tests.story import (
    AT,
    ME,
    PEERS,
    ROUND_S,
    certified,
    day,
    folded,
    report,
    started,
    trainer_ready,
)


def verdict(*events: journal.JournalEvent, now: float = AT) -> tuple[str, str]:
    """Return level and sentence of the verdict after `events`."""
    status = status_at(folded(list(events)), now)
    return status.level, status.verdict


def test_the_verdict_before_the_first_event() -> None:
    assert verdict() == ("info", "Starting")
    assert verdict(started()) == ("info", "Starting: waiting for the trainer")


def test_training_before_the_first_certificate() -> None:
    phase = journal.PhaseEntered(number=1, view=0, phase="train", reason="")
    assert verdict(started(), trainer_ready(), phase, report(1)) == (
        "info",
        "Training, round 1, with 1 other node; no round is certified yet",
    )


def test_alone_says_how_others_join() -> None:
    level, sentence = verdict(
        started(), trainer_ready(), journal.Alone(number=1, samples_pending=1240, reason="")
    )
    assert level == "warning"
    assert sentence.startswith(
        "Alone; 1,240 samples are waiting. Others join with: hypergpud start --join /ip4/"
    )
    level, sentence = verdict(
        started(min_peers=4), journal.Alone(number=1, samples_pending=1, reason="")
    )
    assert "1 sample is waiting for 3 more nodes" in sentence


def test_a_connected_peer_that_is_not_ready_is_counted() -> None:
    up = journal.PeerUp(peer=PEERS[1], address="", path="direct")
    waits = journal.Alone(number=1, samples_pending=1240, reason="")
    assert verdict(started(), trainer_ready(), up, report(1), waits) == (
        "warning",
        "Waiting: 1 other node is connected but not ready; 1,240 samples are waiting. "
        "To see what each node does: hypergpud peers",
    )
    assert verdict(started(min_peers=4), up, report(1), waits)[1].startswith("Alone; ")


def test_a_trouble_that_lasts_goes_with_the_verdict_until_it_is_over() -> None:
    port = journal.Trouble(code="PORT", level="warning", message="port 4001 is taken")
    key = journal.Trouble(code="KEY", level="bad", message="another node has this key")
    assert verdict(started(), port) == (
        "warning",
        "Starting: waiting for the trainer. Port 4001 is taken",
    )
    assert verdict(started(), port, key) == (
        "bad",
        "Another node has this key. Starting: waiting for the trainer. Port 4001 is taken",
    )
    over = journal.Trouble(code="KEY", level="bad", message="")
    assert verdict(started(), port, key, over)[0] == "warning"
    assert verdict(started(), key, over) == ("info", "Starting: waiting for the trainer")
    assert verdict(started(), key, journal.NodeStopped(reason="asked"))[1].startswith("Stopped")


def test_alone_ends_with_a_plan() -> None:
    alone = journal.Alone(number=1, samples_pending=10, reason="")
    plan = journal.Planned(number=1, view=0, leader="a", members=("a", "b"), reason="")
    assert not verdict(started(), trainer_ready(), alone, plan)[1].startswith("Alone")


def test_rounds_that_counted() -> None:
    events = [certified(n, "counted", at=AT - 1) for n in range(1, 38)]
    events += [certified(38, "late"), certified(39, "late"), certified(40, "lost")]
    assert verdict(started(), trainer_ready(), *events) == (
        "good",
        "37 of your last 40 rounds counted; 2 late, 1 lost",
    )


def test_all_rounds_counted() -> None:
    assert verdict(started(), certified(1), certified(2)) == (
        "good",
        "All of your last 2 rounds counted",
    )
    assert verdict(started(), certified(1)) == ("good", "Your first round counted")


def test_running_fine_and_earning_nothing_is_bad() -> None:
    level, sentence = verdict(started(), *[certified(n, "late") for n in range(1, 7)])
    assert level == "bad"
    assert sentence == "0 of your last 6 rounds counted; 6 late"


def test_nothing_to_offer_is_not_a_failure() -> None:
    level, sentence = verdict(started(), certified(1, "idle"), certified(2, "counted"))
    assert level == "good"
    assert sentence == "1 of your last 2 rounds counted; 1 with nothing to offer"


def test_stuck_until_something_moves() -> None:
    stuck = journal.Stuck(reason="the disk is full: 3 MB free, 80 MB needed.")
    assert verdict(started(), certified(1), stuck) == (
        "bad",
        "Cannot continue: the disk is full: 3 MB free, 80 MB needed.",
    )
    assert verdict(started(), stuck, certified(1))[0] == "good"


def test_the_trainer_died() -> None:
    level, sentence = verdict(
        started(), trainer_ready(), journal.TrainerStopped(reason="killed by signal 9", restarts=2)
    )
    assert (level, sentence) == (
        "bad",
        "The trainer died and restarts (restart 2): killed by signal 9.",
    )


def rhythm(role: str = "node") -> list[journal.JournalEvent]:
    """Two certificates `ROUND_S` apart, of four members that are heard."""
    return [
        started(role),
        *(journal.PeerUp(at=AT, peer=PEERS[i], path="direct", address="") for i in (1, 2, 3)),
        *(report(i) for i in (1, 2, 3)),
        certified(1, at=AT - ROUND_S),
        certified(2, at=AT),
    ]


def test_verdict_turns_amber_and_red_by_the_rhythm_of_the_run() -> None:
    events = rhythm()
    assert verdict(*events, now=AT + 3 * ROUND_S)[0] == "good"
    assert verdict(*events, now=AT + 3 * ROUND_S + 1) == (
        "warning",
        "No round certified for 43 s (usually 14 s); the last one was round 2",
    )
    level, sentence = verdict(*events, now=AT + 10 * ROUND_S + 1)
    assert level == "bad"
    assert sentence == "No round certified for 2 min (usually 14 s); the last one was round 2"
    passed = journal.ViewPassed(number=3, view=0, reason="the leader was silent")
    assert verdict(*events, passed, now=AT + 200)[1].endswith("Last try: the leader was silent.")
    # One certificate has no rhythm yet.
    assert verdict(started(), certified(1), now=AT + 9000)[0] == "good"


def test_verdict_names_the_members_that_stopped_answering() -> None:
    down = journal.PeerDown(at=AT + 3, peer=PEERS[2], reason="reset")
    level, sentence = verdict(*rhythm("observer"), down, now=AT + 50)
    assert level == "warning"
    assert sentence == (
        "No round certified for 50 s (usually 14 s): basement-4090"
        f" ({PEERS[2][-8:]}) stopped answering, 3 of 4 members left"
    )
    forgotten = journal.PeerForgotten(at=AT + 25, peer=PEERS[2], silent_s=20.0)
    assert verdict(*rhythm("observer"), down, forgotten, now=AT + 50)[1] == sentence


def test_verdict_of_short_rounds_allows_for_one_failed_leader() -> None:
    quick = [started(), *(certified(n, at=AT + 0.5 * n) for n in range(1, 9))]
    assert verdict(*quick, now=AT + 4 + 4.9)[0] == "good"
    assert verdict(*quick, now=AT + 4 + 5.1)[0] == "warning"
    assert verdict(*quick, now=AT + 4 + 20.1)[0] == "bad"


def test_verdict_waits_longer_where_the_plan_made_the_next_round_longer() -> None:
    longer = msgspec.structs.replace(certified(3, at=AT + 14), next_round_s=60.0)
    assert verdict(*rhythm(), longer, now=AT + 14 + 170)[0] == "good"
    assert verdict(*rhythm(), longer, now=AT + 14 + 190)[0] == "warning"


def test_verdict_says_what_to_do_after_saying_that_the_run_stands_still() -> None:
    alone = journal.Alone(number=3, samples_pending=80, reason="")
    level, sentence = verdict(*rhythm(), alone, now=AT + 400)
    assert level == "bad"
    assert sentence.startswith("No round certified for 6 min (usually 14 s)")
    assert ". Alone; 80 samples are waiting" in sentence or ". Waiting: " in sentence


def test_many_failed_tries_do_not_hide_the_last_certificate() -> None:
    passed = [
        journal.ViewPassed(at=AT, number=3, view=view, reason="nobody answered")
        for view in range(60)
    ]
    level, sentence = verdict(*rhythm("observer"), *passed, now=AT + 200)
    assert level == "bad"
    assert "the last one was round 2" in sentence


def test_stopped() -> None:
    assert verdict(started(), journal.NodeStopped(reason="asked to by hypergpud stop")) == (
        "info",
        "Stopped: asked to by hypergpud stop.",
    )


def test_an_observer_judges_the_run() -> None:
    assert verdict(started("observer")) == (
        "warning",
        "No node is training yet; waiting for the nodes of this run",
    )
    assert verdict(started("observer"), report(1)) == (
        "info",
        "1 node is training; no round is certified yet",
    )
    level, sentence = verdict(*day("observer"))
    assert level == "good"
    assert sentence == (
        "6 rounds certified, the last with 4 of 4 members; claimed loss 5.950 → 5.700; "
        "a round every 14 s; 1 try failed"
    )
    level, sentence = verdict(*day("observer"), certified(7, "observed", at=AT + 10), now=AT + 40)
    assert level == "warning"
    assert sentence.endswith("no node is training now")


def averaged(number: int, outcome: str = "averaged", reason: str = "") -> journal.RoundAveraged:
    return journal.RoundAveraged(
        at=AT + number,
        number=number,
        outcome=outcome,
        shares=(journal.Contributor(peer=ME, samples=100, loss=3.0),),
        samples=100,
        loss=3.0 - number / 10,
        phase_seconds={"reduce": 0.2},
        reason=reason,
    )


def test_rounds_without_certificates_are_named_as_such() -> None:
    begun = msgspec.structs.replace(started(), engine="hivemind")
    level, sentence = verdict(begun, trainer_ready(), averaged(1), averaged(2))
    assert level == "info"
    assert sentence == (
        "2 of your last 2 rounds were averaged; "
        "hivemind's rounds carry no certificates and earn nothing"
    )
    level, sentence = verdict(
        begun, trainer_ready(), averaged(1), averaged(2, "partial"), averaged(2, "failed")
    )
    assert level == "warning"
    assert sentence.startswith(
        "1 of your last 3 rounds were averaged (1 only in part, 1 failed); hivemind's rounds carry"
    )
    state = folded(
        [
            begun,
            trainer_ready(),
            averaged(1),
            averaged(2, "partial", "26% of the values are this node's own"),
        ]
    )
    status = status_at(state, AT)
    assert (status.run.number, status.run.rounds_certified, status.run.samples_certified) == (
        1,
        0,
        0,
    )
    assert status.you.rounds_counted == 0
    assert "earn nothing" in status.rewards
    assert [known.outcome for known in status.rounds] == ["partial", "averaged"]
    assert status.rounds[0].contributors == ()
    assert status.curve == ()
    assert "26%" in status.events[0].text


def test_an_observer_of_a_run_without_certificates_says_so() -> None:
    begun = msgspec.structs.replace(started("observer"), engine="hivemind")
    level, sentence = verdict(begun, report(1))
    assert level == "info"
    assert "(self-reported); the engine hivemind has no certificates" in sentence


def test_the_verdict_does_not_change_with_every_second() -> None:
    state = folded(day())
    assert len({status_at(state, AT + second).verdict for second in range(10)}) == 1


def test_reading_a_status_loads_neither_cryptography_nor_numpy() -> None:
    code = (
        "import sys, protocol.status; "
        "slow = ('cryptography', 'numpy', 'trio', 'protocol.journal'); "
        "print(*[module for module in slow if module in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert found.stdout.strip() == ""


def test_a_round_that_clips_more_than_a_third_of_its_contributors_is_never_good() -> None:
    events = day(rounds=20)
    one, two = {PEERS[1]: 0.2}, {PEERS[1]: 0.2, PEERS[2]: 0.89}
    level, _ = verdict(*events, certified(21, members=4, kept=one))
    assert level == "good"
    level, sentence = verdict(*events, certified(21, members=4, kept=two))
    assert level == "warning"
    assert sentence == (
        "Round 21 clipped the work of 2 of 4 contributors: it was much longer than the voters' "
        "work. To see whose: hypergpud round 21"
    )


def test_a_paused_node_says_how_it_goes_on() -> None:
    paused = journal.TrainingHeld(held=True)
    waits = journal.Alone(number=1, samples_pending=1240, reason="")
    assert verdict(started(), trainer_ready(), waits, paused) == (
        "info",
        "Training is paused; 1,240 samples wait for the next round. "
        "To train again: hypergpud resume",
    )
    assert verdict(started(), trainer_ready(), paused, journal.TrainingHeld(held=False)) != (
        verdict(started(), trainer_ready(), paused)
    )


def test_a_loss_that_rises_for_five_scored_rounds_is_never_good() -> None:
    events = day("observer")
    numbers = [event.number for event in events if isinstance(event, journal.RoundCertified)]
    names = [event.certificate for event in events if isinstance(event, journal.RoundCertified)]
    member = next(
        event.members[-1] for event in events if isinstance(event, journal.RoundCertified)
    )
    assert len(numbers) == 6

    def measured(losses: list[float]) -> tuple[str, str]:
        scores = [
            journal.PeerScored(peer=member, number=number, certificate=name, loss=loss, samples=64)
            for number, name, loss in zip(numbers, names, losses, strict=True)
        ]
        return verdict(*events, *scores)

    level, sentence = measured([5.0, 5.1, 5.2, 5.3, 5.4, 5.5])
    assert level == "warning"
    assert "rose for 5 scored rounds (5.000 → 5.500)" in sentence
    assert measured([5.0, 5.1, 5.2, 5.3, 5.4, 5.3])[0] == "good"


def reach(callable: bool | None, *unreachable: str) -> journal.ReachReport:
    return journal.ReachReport(
        callable=callable,
        nat="symmetric",
        observed="203.0.113.101",
        text="Others cannot call this node.",
        unreachable=unreachable,
    )


def test_a_node_that_cannot_be_called_prints_no_address_of_its_own() -> None:
    alone = journal.Alone(number=1, samples_pending=1240, reason="")
    level, sentence = verdict(started(), trainer_ready(), reach(False), alone)
    assert level == "warning"
    assert "hypergpud start --join" not in sentence
    assert "a member that can be called" in sentence


def test_a_pair_without_a_path_is_named_with_what_to_do() -> None:
    level, sentence = verdict(
        started(), trainer_ready(), report(1, path=""), reach(False, PEERS[1])
    )
    assert level == "warning"
    assert "No path to" in sentence
    assert "network.relay = true" in sentence
    _, healed = verdict(started(), trainer_ready(), report(1, path=""), reach(False))
    assert "No path" not in healed


def test_a_peer_that_is_gone_is_no_pair_without_a_path() -> None:
    _, sentence = verdict(
        started(), trainer_ready(), report(1, path=""), reach(False, PEERS[1]), now=AT + 600
    )
    assert "No path" not in sentence


def test_a_node_that_lost_everybody_who_can_be_called_reads_what_is_missing() -> None:
    lost = journal.PeerDown(at=AT, peer=PEERS[1], reason="the connection was closed")
    events = (started(), trainer_ready(), report(1, path=""), lost)
    level, sentence = verdict(*events, reach(False))
    assert level == "warning"
    assert "no node that can be called is connected" in sentence
    assert "out of reach" not in verdict(*events, reach(True))[1]
    assert "out of reach" not in verdict(started(), trainer_ready(), reach(False))[1]


def test_verdict_of_a_run_that_its_owner_paused_is_no_standstill() -> None:
    paused = journal.OwnerOrdered(at=AT, serial=1, action="pause")
    level, sentence = verdict(*rhythm("observer"), paused, now=AT + 900)
    assert (level, sentence) == (
        "info",
        "The run's owner paused training on every node after round 2. To go on, the owner types"
        " hypergpud run resume",
    )
    status = status_at(folded([*rhythm("observer"), paused]), AT + 900)
    assert (status.run.standstill, status.run.order) == ("", "pause")
    held = journal.TrainingHeld(held=True)
    assert (
        "stopped training"
        in verdict(*rhythm(), journal.OwnerOrdered(serial=2, action="stop"), held)[1]
    )
    again = journal.OwnerOrdered(serial=3, action="start")
    assert verdict(*rhythm("observer"), paused, again, now=AT + 900)[0] == "bad"


def test_verdict_says_which_nodes_do_not_follow_the_owners_order() -> None:
    paused = journal.OwnerOrdered(at=AT, serial=1, action="pause")
    events = [*day("observer"), paused]

    def shown(*more: journal.JournalEvent, now: float) -> Status:
        return status_at(folded([*events, *more]), now)

    def beat(i: int, speed: float) -> journal.JournalEvent:
        return msgspec.structs.replace(report(i, at=AT + 90), samples_per_second=speed)

    soon = shown(now=AT + 2)
    assert (soon.level, soon.run.order_outcome) == ("info", "failed")
    partial = shown(beat(1, 0.0), beat(2, 9.0), beat(3, 0.0), beat(4, 0.0), now=AT + 91)
    assert (partial.level, partial.run.order_outcome) == ("warning", "partial")
    assert partial.run.order_training == (PEERS[2],)
    assert "paused training after round 6: 3 of 4 nodes follow, basement-4090" in partial.verdict
    assert "still trains. To go on" in partial.verdict
    complete = shown(*(beat(i, 0.0) for i in (1, 2, 3, 4)), now=AT + 91)
    assert (complete.level, complete.run.order_outcome) == ("info", "complete")
    assert "on every node" in complete.verdict
    again = journal.OwnerOrdered(at=AT + 92, serial=2, action="start")
    assert shown(again, now=AT + 93).run.order_outcome == ""
