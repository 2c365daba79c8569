"""Who waits where two members have no path between them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from protocol.identity import PeerId
from protocol.messages.offer import Ready, TrustReady
from protocol.network.peer_observation import short_name
from protocol.planning.paths import without_path

PEERS = ("a", "b", "c", "d", "e")
HASH = bytes(32)


def offers(**claims: str) -> list[tuple[PeerId, Ready]]:
    """One offer for each of `PEERS`, which names the peers in its text as unreachable."""
    plain = TrustReady(
        parent=HASH, view=0, number=1, seq=1, samples=1, contribution=HASH, loss=None,
        fingerprint=HASH, uplink_bps=0, downlink_bps=0,
    )  # fmt: skip
    return [
        (
            peer,
            msgspec.structs.replace(
                plain, unreachable=tuple(map(short_name, claims.get(peer, "")))
            ),
        )
        for peer in PEERS
    ]


def waiting(
    made: list[tuple[PeerId, Ready]],
    *,
    leader: str = "a",
    drawn: Sequence[PeerId] = PEERS,
    low: str = "",
    least: int = 2,
) -> dict[PeerId, PeerId]:
    return without_path(made, leader, lambda peer: 0 if peer in low else 1, drawn, least)


def test_without_path_leaves_a_plan_whole_where_every_pair_has_a_path() -> None:
    assert waiting(offers()) == {}


def test_without_path_lets_both_of_a_pair_take_turns() -> None:
    made = offers(b="c", c="b")
    assert waiting(made) == {"c": "b"}
    assert waiting(made, drawn=("a", "c", "b", "d", "e")) == {"b": "c"}


def test_without_path_never_lets_the_leader_wait() -> None:
    assert waiting(offers(b="c", c="b"), leader="c") == {"b": "c"}


def test_without_path_prefers_voters() -> None:
    assert waiting(offers(b="c", c="b"), low="b") == {"b": "c"}


def test_without_path_lets_the_sender_of_a_false_claim_wait() -> None:
    made = offers(b="acde")
    assert waiting(made, drawn=("b", "a", "c", "d", "e")) == {"b": "a"}
    one = offers(b="c")
    assert waiting(one) == {"b": "c"}


def test_without_path_keeps_as_many_as_a_plan_needs() -> None:
    made = offers(b="cde", c="bde", d="bce", e="bcd")
    assert len(waiting(made, least=2)) == 3
    assert len(waiting(made, least=4)) == 1


@given(
    st.dictionaries(st.sampled_from(PEERS), st.text("abcde", max_size=5)),
    st.permutations(PEERS),
    st.sampled_from(PEERS),
)
def test_without_path_leaves_no_pair_and_is_stable(
    claims: dict[str, str], drawn: list[str], leader: str
) -> None:
    made = offers(**claims)
    gone = waiting(made, leader=leader, drawn=drawn, least=1)
    assert leader not in gone
    left = [peer for peer in PEERS if peer not in gone]
    for one in left:
        assert not set(claims.get(one, "")) & set(left) - {one}
    # A plan is made again from its own offers, and must be the same.
    rest = [(peer, ready) for peer, ready in made if peer in left]
    assert waiting(rest, leader=leader, drawn=drawn, least=1) == {}
