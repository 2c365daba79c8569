"""Members: which peers are alive at which tip, how often beacons come, and how many peers fit."""

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


def test_beacons_per_second_stay_constant_as_members_are_added() -> None:
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
    """A newcomer hears `BEACONS_PER_S` members a second, each once in `beacon_s(10_000)`."""
    events: list[JournalEvent] = []
    known = table(events)
    for i in range(10_000):
        now = i / beacon_schedule.BEACONS_PER_S
        assert known.receive(f"peer {i}", beacon(1, TIPS[0]), now)
        known.expire(now)
    assert len(known) == 10_000
    assert not [event for event in events if isinstance(event, PeerForgotten)]


def test_expire_forgets_silent_peers_only() -> None:
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


def test_the_peer_heard_longest_ago_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "MAX_MEMBERS", 3)
    known = table()
    for i, peer in enumerate(("a", "b", "c", "a", "d")):
        known.receive(peer, beacon(i + 1, TIPS[0]), float(i))
    assert known.live_at(TIPS[0]) == {"a", "c", "d"}


@pytest.mark.parametrize("seed", range(20))
def test_the_indexes_agree_with_a_scan_of_all_peers(seed: int) -> None:
    rng = random.Random(seed)
    known, expected = table(), dict[PeerId, tuple[Beacon, bool]]()
    for serial in range(1, 400):
        peer = f"peer {rng.randrange(12)}"
        before = known.version
        if rng.random() < 0.7:
            sent = beacon(
                serial,
                rng.choice(TIPS),
                number=rng.randrange(3),
                role=rng.choice(("node", "node", "observer")),
            )
            known_before = expected.get(peer)
            expected[peer] = (sent, False)
            changed = known.receive(peer, sent, float(serial))
            assert changed == (
                known_before is None
                or known_before[1]
                or (known_before[0].tip, known_before[0].role) != (sent.tip, sent.role)
            )
            assert not changed or known.version > before or sent.role == "observer"
        elif peer in expected:
            known.link_down(peer, "lost")
            expected[peer] = (expected[peer][0], True)
        live = {
            peer: sent
            for peer, (sent, lost) in expected.items()
            if not lost and sent.role == "node"
        }
        for tip in TIPS:
            assert known.live_at(tip) == {peer for peer, sent in live.items() if sent.tip == tip}
        assert set(known.strangers(lambda tip: tip == TIPS[0], 1)) == {
            peer for peer, sent in live.items() if sent.tip != TIPS[0] and sent.number >= 1
        }
        assert set(known.ahead_of(1)) == {peer for peer, sent in live.items() if sent.number > 1}


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
        "the node may still ask them for what they hold"
    )


def test_awaited_at_keeps_a_connected_peer_that_advances() -> None:
    known = table()
    link = Link(peer="newcomer", path="direct", address="", rtt_s=None, since_s=0.0)
    known.link_up(link)
    for now, phase in ((0.0, "starting"), (50.0, "train"), (90.0, "ready")):
        known.receive(
            "newcomer", msgspec.structs.replace(beacon(int(now) + 1, TIPS[0]), phase=phase), now
        )
    assert known.awaited_at(TIPS[0], 95.0, 10.0) == {"newcomer"}
    assert known.awaited_at(TIPS[0], 101.0, 10.0) == set()


def test_four_thousand_strangers_do_not_slow_the_beacons_of_a_pair() -> None:
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


def test_all_members_of_a_large_run_count_for_the_beacon_rate() -> None:
    known = table()
    for n in range(1000):
        known.receive(f"peer {n}", beacon(1, TIPS[0]), 0.0)
    known.prove(f"peer {n}" for n in range(300))
    assert known.counted_members == 1000
    assert [known.rank(peer) for peer in ("peer 0", "peer 999")] == [0, 2]
    known.prove(f"later {n}" for n in range(members.PROVEN_KEPT))
    assert len(known.proven) == members.PROVEN_KEPT


def test_training_at_leaves_out_strangers_once_members_are_known() -> None:
    """A round waits while most other nodes train. The keys of one stranger once were most nodes."""
    known = table()
    for peer in ("partner", "key 1", "key 2", "key 3"):
        known.receive(peer, beacon(1, TIPS[0]), 0.0)
    assert known.training_at(TIPS[0]) == {"partner", "key 1", "key 2", "key 3"}, (
        "a run begins among strangers"
    )
    known.prove(("me", "partner"))
    assert known.training_at(TIPS[0]) == {"partner"}
