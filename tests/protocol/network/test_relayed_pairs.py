"""Which pairs of a plan count as relayed, and with what capacity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from protocol.identity import PeerId
from protocol.messages.offer import Ready, RelayedPath, TrustReady
from protocol.network.peer_observation import PeerObservation, short_name
from protocol.network.relayed_pairs import relayed_pairs

PEERS = ("a", "b", "c")
HASH = bytes(32)


def path(to: str, relay: str, cap_bps: int = 0) -> RelayedPath:
    return RelayedPath(to=short_name(to), relay=short_name(relay), cap_bps=cap_bps)


def offers(
    claims: Mapping[PeerId, Sequence[RelayedPath]], seen: Sequence[PeerObservation] = ()
) -> list[tuple[PeerId, Ready]]:
    """One offer for each of `PEERS`. The first one has observations."""
    return [
        (
            peer,
            TrustReady(
                parent=HASH, view=0, number=1, seq=1, samples=1, contribution=HASH, loss=None,
                fingerprint=HASH, uplink_bps=0, downlink_bps=0,
                relayed=tuple(claims.get(peer, ())), observations=tuple(seen) * (peer == "a"),
            ),
        )
        for peer in PEERS
    ]  # fmt: skip


UP, DOWN = (9_000_000, 9_000_000, 0), (4_000_000, 9_000_000, 0)


def test_relayed_pairs_count_where_both_ends_name_them() -> None:
    assert relayed_pairs(offers({"b": [path("c", "a")]}), UP, DOWN) == ()
    both = relayed_pairs(offers({"b": [path("c", "a")], "c": [path("b", "a")]}), UP, DOWN)
    assert [(pair.sender, pair.to) for pair in both] == [(1, 2), (2, 1)]
    assert {pair.capacity_bps for pair in both} == {4_000_000}, "the weaker side of its link"


def test_relayed_pairs_of_a_relay_outside_of_the_plan_count_as_members_measured_it() -> None:
    seen = PeerObservation(who=short_name("x"), rtt_us=1000, uplink_bps=3_000_000)
    claims = {"b": [path("c", "x")], "c": [path("b", "y")]}
    found = relayed_pairs(offers(claims, [seen]), UP, DOWN)
    assert [pair.capacity_bps for pair in found] == [3_000_000, 0], "nobody measured y"


def test_relayed_pairs_count_with_the_cap_of_the_relays_owner() -> None:
    claims = {"b": [path("c", "a", 1_000_000)], "c": [path("b", "a", 8_000_000)]}
    found = relayed_pairs(offers(claims), UP, DOWN)
    assert [pair.capacity_bps for pair in found] == [1_000_000, 4_000_000]


def test_relayed_pairs_ignore_oneself_and_peers_without_an_offer() -> None:
    claims = {"b": [path("b", "a"), path("z", "a")]}
    assert relayed_pairs(offers(claims), UP, DOWN) == ()
