"""The table of members: who lives where, at what pace of beacons, and that it stays cheap with
many.
"""

from __future__ import annotations

import random

import msgspec
import pytest

from daemon.swarm import beacon_schedule, members
from daemon.swarm.beacon_schedule import beacon_s, poke_gap_s, settling_s, silence_s
from daemon.swarm.members import Members
from protocol.digest import Digest, digest
from protocol.identity import PeerId
from protocol.journal import JournalEvent, PeerForgotten
from protocol.messages.beacon import Beacon
from protocol.ports.network import Link

TIPS = [digest(b"tip", bytes([i])) for i in range(3)]


def beacon(serial: int, tip: Digest, *, number: int = 1, role: str = "node") -> Beacon:
    return Beacon(
        serial=serial,
        name="n",
        role=role,
        number=number,
        tip=tip,
        view=0,
        phase="train",
        samples=0,
        loss=None,
        samples_per_second=0.0,
        device="",
        endpoint=None,
    )


def table(events: list[JournalEvent] | None = None) -> Members:
    return Members("me", (events if events is not None else []).append, lambda _endpoint: None)


def test_what_each_member_hears_stays_the_same_as_members_become_more() -> None:
    assert [beacon_s(n) for n in (0, 8, 125)] == [5.0, 5.0, 5.0]
    assert [poke_gap_s(n) for n in (0, 8, 25)] == [0.5, 0.5, 0.5]
    assert settling_s(beacon_schedule.FEW_MEMBERS) == 0.0, "few members act on every change at once"
    for n in (200, 1_000, 10_000):
        assert n / beacon_s(n) == pytest.approx(beacon_schedule.BEACONS_PER_S)
        assert (
            n / poke_gap_s(n)
            <= beacon_schedule.BEACONS_PER_CHANGE * beacon_schedule.BEACONS_PER_S + 1e-9
        )
        assert silence_s(n) >= 3 * beacon_s(n), "three beacons may be lost"
        assert 0.0 < settling_s(n) <= 1.0


def test_a_newcomer_forgets_no_peer_while_it_learns_of_many() -> None:
    """It hears `BEACONS_PER_S` members a second, each of them once in `beacon_s(10_000)`, and at
    first knows few.
    """
    events: list[JournalEvent] = []
    known = table(events)
    for i in range(10_000):
        now = i / beacon_schedule.BEACONS_PER_S
        assert known.receive(f"peer {i}", beacon(1, TIPS[0]), now)
        known.expire(now)
    assert len(known) == 10_000
    assert not [event for event in events if isinstance(event, PeerForgotten)]


def test_who_is_silent_is_forgotten_and_nobody_else() -> None:
    events: list[JournalEvent] = []
    known = table(events)
    known.receive("silent", beacon(1, TIPS[0]), 0.0)
    known.receive("talking", beacon(1, TIPS[0]), 0.0)
    known.link_down("talking", "lost")
    known.receive("talking", beacon(2, TIPS[0]), 15.0)
    known.expire(20.0)
    assert known.live_at(TIPS[0]) == {"silent", "talking"}
    known.expire(20.1)
    assert known.live_at(TIPS[0]) == {"talking"}
    assert [event.peer for event in events if isinstance(event, PeerForgotten)] == ["silent"]


def test_the_one_heard_longest_ago_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "MAX_MEMBERS", 3)
    known = table()
    for i, peer in enumerate(("a", "b", "c", "a", "d")):
        known.receive(peer, beacon(i + 1, TIPS[0]), float(i))
    assert known.live_at(TIPS[0]) == {"a", "c", "d"}


@pytest.mark.parametrize("seed", range(20))
def test_the_sets_of_the_living_are_what_a_look_at_everybody_gives(seed: int) -> None:
    rng = random.Random(seed)
    known, expected = table(), dict[PeerId, tuple[Beacon, bool]]()
    for serial in range(1, 400):
        peer = f"peer {rng.randrange(12)}"
        before = known.version
        if rng.random() < 0.7:
            said = beacon(
                serial,
                rng.choice(TIPS),
                number=rng.randrange(3),
                role=rng.choice(("node", "node", "observer")),
            )
            had = expected.get(peer)
            expected[peer] = (said, False)
            changed = known.receive(peer, said, float(serial))
            assert changed == (
                had is None or had[1] or (had[0].tip, had[0].role) != (said.tip, said.role)
            )
            assert not changed or known.version > before or said.role == "observer"
        elif peer in expected:
            known.link_down(peer, "lost")
            expected[peer] = (expected[peer][0], True)
        living = {
            peer: said
            for peer, (said, lost) in expected.items()
            if not lost and said.role == "node"
        }
        for tip in TIPS:
            assert known.live_at(tip) == {peer for peer, said in living.items() if said.tip == tip}
        assert set(known.strangers(lambda tip: tip == TIPS[0], 1)) == {
            peer for peer, said in living.items() if said.tip != TIPS[0] and said.number >= 1
        }
        assert set(known.ahead_of(1)) == {peer for peer, said in living.items() if said.number > 1}


def test_awaited_at_leaves_out_strangers_that_take_no_part() -> None:
    known = table()
    for peer in ("member", "stranger", "worker"):
        known.receive(peer, beacon(1, TIPS[0]), 0.0)
    known.prove(["member"])
    assert known.awaited_at(TIPS[0], 10.0, 10.0) == {"member", "stranger", "worker"}
    known.took_part("worker", 8.0)
    for now in (11.0, 17.0):
        for peer in ("member", "stranger", "worker"):
            known.receive(peer, beacon(int(now), TIPS[0]), now)
    assert known.awaited_at(TIPS[0], 17.0, 10.0) == {"member", "worker"}
    assert known.live_at(TIPS[0]) == {"member", "stranger", "worker"}, (
        "what they hold may still be asked for"
    )


def test_awaited_at_keeps_a_connected_peer_that_gets_on() -> None:
    known = table()
    link = Link(peer="newcomer", path="direct", address="", rtt_s=None, since_s=0.0)
    known.link_up(link)
    for now, phase in ((0.0, "starting"), (50.0, "train"), (90.0, "ready")):
        known.receive(
            "newcomer", msgspec.structs.replace(beacon(int(now) + 1, TIPS[0]), phase=phase), now
        )
    assert known.awaited_at(TIPS[0], 95.0, 10.0) == {"newcomer"}
    assert known.awaited_at(TIPS[0], 101.0, 10.0) == set()


def test_four_thousand_strangers_slow_no_beacon_of_a_pair() -> None:
    known = table()
    known.prove(["partner"])
    for n in range(4000):
        known.receive(f"stranger {n}", beacon(1, TIPS[0]), 0.0)
    known.receive("partner", beacon(1, TIPS[0]), 0.0)
    assert known.counted_members <= 1 + 2 * members.STRANGERS_PER_MEMBER
    assert beacon_s(known.counted_members) == beacon_s(0)
    assert poke_gap_s(known.counted_members) == poke_gap_s(0)
    known.expire(silence_s(4001) + 1.0)
    assert len(known) == 0
    assert not known._took_part


def test_members_of_a_large_run_pace_themselves_as_ever() -> None:
    known = table()
    for n in range(1000):
        known.receive(f"peer {n}", beacon(1, TIPS[0]), 0.0)
    known.prove(f"peer {n}" for n in range(300))
    assert known.counted_members == 1000
    assert [known.rank(peer) for peer in ("peer 0", "peer 999")] == [0, 2]
    known.prove(f"later {n}" for n in range(members.PROVEN_KEPT))
    assert len(known.proven) == members.PROVEN_KEPT


def test_strangers_that_say_they_train_hold_up_no_round() -> None:
    """A round waits for most others, where they still train.

    Keys of one stranger were most others.
    """
    known = table()
    for peer in ("partner", "key 1", "key 2", "key 3"):
        known.receive(peer, beacon(1, TIPS[0]), 0.0)
    assert known.training_at(TIPS[0]) == {"partner", "key 1", "key 2", "key 3"}, (
        "a run begins among strangers"
    )
    known.prove(("me", "partner"))
    assert known.training_at(TIPS[0]) == {"partner"}
