"""AskOrder: members come before strangers, equals take turns, and false claims cost pauses."""

from __future__ import annotations

from daemon.swarm.ask_order import KEPT_PEERS, MEMBER_PAUSE_S, PAUSE_S, AskOrder

RANKS = {"member": 0, "linked": 1}


def rank(peer: str) -> int:
    return RANKS.get(peer, 2)


def test_a_member_is_asked_first_whatever_strangers_claim() -> None:
    order = AskOrder()
    claimants = [f"claimant {n}" for n in range(64)]
    assert order.order([*claimants, "linked", "member"], rank, 0.0)[:2] == ["member", "linked"]


def test_a_peer_that_gave_nothing_is_asked_after_longer_and_longer_pauses() -> None:
    order, now, pauses = AskOrder(), 0.0, []
    for _ in range(12):
        order.gave_nothing("claimant", rank("claimant"), now)
        began = now
        while not order.order(["claimant"], rank, now):
            now += 0.5
        pauses.append(now - began)
    assert pauses[:3] == [PAUSE_S[0], 2 * PAUSE_S[0], 4 * PAUSE_S[0]]
    assert pauses[-1] == PAUSE_S[1]
    order.gave("claimant")
    order.gave_nothing("claimant", rank("claimant"), now)
    assert order.order(["claimant"], rank, now + PAUSE_S[0]) == ["claimant"]


def test_a_member_is_asked_again_soon() -> None:
    order = AskOrder()
    for _ in range(20):
        order.gave_nothing("member", rank("member"), 0.0)
    assert order.order(["member"], rank, MEMBER_PAUSE_S) == ["member"]


def test_equals_are_asked_in_turn() -> None:
    order = AskOrder()
    asked = []
    for now in range(6):
        first = order.order(["a", "b", "c"], lambda _: 1, float(now))[0]
        order.asked(first, float(now) + 0.5)
        asked.append(first)
    assert sorted(asked) == ["a", "a", "b", "b", "c", "c"]


def test_the_number_of_remembered_peers_is_bounded() -> None:
    order = AskOrder()
    for n in range(2 * KEPT_PEERS):
        order.asked(f"peer {n}", 0.0)
        order.gave_nothing(f"peer {n}", 2, 0.0)
    assert len(order._in_vain) == len(order._asked_s) == KEPT_PEERS
