"""Equal events share one line of the list; what differs keeps its own."""

from __future__ import annotations

from msgspec.structs import replace

from protocol import journal
from protocol.journal import JournalEvent
from protocol.status import StatusState, status_at
from tests.story import AT, ME, PEERS, certified, folded, started


def lines(events: list[JournalEvent]) -> list[str]:
    return [line.text for line in status_at(folded([started(), *events]), AT).events][:-1]


def plan(number: int, reason: str = "one group of 4") -> journal.Planned:
    return journal.Planned(number=number, view=0, leader=PEERS[1], members=PEERS[:4], reason=reason)


def trained(number: int) -> journal.Trained:
    return journal.Trained(number=number, steps=10, samples=100, loss=3.0, seconds=12.5)


def test_alike_certificates_share_one_line_with_the_sum_of_their_samples() -> None:
    found = lines([certified(n, loss=5.0) for n in (96, 97, 98)])
    assert found == [
        "Rounds 96-98 are certified: 4 of 4 members counted, 1,200 samples, claimed loss 5.000."
        " Your work counted."
    ]


def test_certificates_are_folded_over_the_plans_and_the_work_between_them() -> None:
    events: list[JournalEvent] = []
    for number in (7, 8, 9):
        events += [trained(number), plan(number), certified(number, loss=5.0)]
    found = lines(events)
    assert len(found) == 3
    assert found[0].startswith("Rounds 7-9 are certified")
    assert found[1] == "Planned rounds 7-9: 4 members; one group of 4."
    assert found[2] == ("Trained 300 samples in 38 s (8 samples/s) for rounds 7-9, loss 3.000.")


def test_another_outcome_count_or_reason_or_a_gap_begins_a_new_line() -> None:
    found = lines(
        [
            certified(1),
            certified(2, "late"),
            certified(3),
            certified(4, members=3),
            certified(6, members=3),
        ]
    )
    assert [text.split(" are ")[0].split(" is ")[0] for text in found] == [
        "Round 6",
        "Round 4",
        "Round 3",
        "Round 2",
        "Round 1",
    ]


def test_a_warning_between_two_rounds_keeps_their_order() -> None:
    failed = journal.ViewPassed(number=2, view=0, reason="the leader was silent")
    found = lines([certified(1), failed, certified(2), certified(3)])
    assert [text[:9] for text in found] == ["Rounds 2-", "Round 2 f", "Round 1 i"]


def test_equal_sentences_share_a_line_with_their_count() -> None:
    gone = journal.PeerDown(peer=PEERS[1], reason="the connection was reset")
    assert len(lines([gone, gone, gone])) == 1
    assert lines([gone, gone, gone])[0].endswith(" (3 times)")
    other = replace(gone, peer=PEERS[2])
    assert len(lines([gone, other, gone])) == 3


def test_a_second_try_of_a_plan_stays_in_its_line() -> None:
    again = replace(plan(3), view=1)
    assert lines([plan(2), plan(3), again]) == ["Planned rounds 2-3: 4 members; one group of 4."]


def test_folded_lines_leave_room_for_others() -> None:
    state: StatusState = folded([started(), *(certified(n) for n in range(1, 500))])
    assert len(state.newest_lines()) == 2
    assert ME in state.newest_lines()[-1].text or "Started" in state.newest_lines()[-1].text
