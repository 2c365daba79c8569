"""Tests the decisions about hivemind's rounds."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.services.training.hivemind.messages import SKETCH, MemberInfo, VectorAveraged
from daemon.services.training.hivemind.policy import (
    MIN_REST,
    averager_settings,
    check_manifest,
    choose_group,
    decide_round,
    find_s,
    lane_of,
    next_end,
    sketch_of,
)
from daemon.services.training.hivemind.settings import COMPRESSIONS, peer_settings
from protocol.errors import UserError
from protocol.run.manifest import Group, Manifest, RoundRules

RUN = bytes(range(32))
FINE = Manifest(name="x", task="simple_cnn", engine="hivemind")


def member(peer: str, number: int = 3, shift: float = 0.0) -> MemberInfo:
    return MemberInfo(
        peer=peer, number=number, samples=10, loss=None, sketch=(1.0 + shift, -0.5, 0.25)
    )


def averaged(*members: MemberInfo, group: int | None = None, **holes: int) -> VectorAveraged:
    fine = VectorAveraged(
        id=1,
        group=len(members) if group is None else group,
        members=members,
        elements=100,
        local_elements=0,
        missing_senders=0,
        parts_expected=8,
        parts_summed=8,
        matchmaking_s=0.5,
        all_reduce_s=0.25,
    )
    return msgspec.structs.replace(fine, **holes)


@pytest.mark.parametrize(
    "manifest",
    [
        msgspec.structs.replace(FINE, codec="int8"),
        msgspec.structs.replace(FINE, round=RoundRules(steps=5)),
        msgspec.structs.replace(FINE, round=RoundRules(seconds=1.0)),
    ],
)
def test_check_manifest_refuses_a_run_that_hivemind_cannot_do(manifest: Manifest) -> None:
    check_manifest(FINE)
    with pytest.raises(UserError) as refused:
        check_manifest(manifest)
    assert refused.value.fix


@given(seconds=st.floats(4.0, 3600.0))
def test_averager_settings_have_timeouts_that_fit_into_the_round(seconds: float) -> None:
    settings = averager_settings(
        RUN, msgspec.structs.replace(FINE, round=RoundRules(seconds=seconds))
    )
    assert settings.compression in COMPRESSIONS
    assert "." not in settings.prefix
    assert settings.request_s < settings.matchmaking_s < find_s(settings) < seconds * (1 - MIN_REST)


@given(now=st.floats(1.6e9, 1.8e9), seconds=st.floats(4.0, 3600.0))
def test_next_end_is_a_multiple_of_the_round_and_no_round_is_empty_or_double(
    now: float, seconds: float
) -> None:
    end = next_end(now, seconds)
    assert MIN_REST * seconds - 1e-5 <= end - now <= (1 + MIN_REST) * seconds + 1e-5
    assert min(end % seconds, seconds - end % seconds) < 1e-4


def test_members_that_failed_to_meet_meet_at_the_next_end() -> None:
    """One member failed early, one late. A rule that skips short rests would separate them."""
    assert next_end(103.6, 5.0) == next_end(100.1, 5.0) == 105.0


@given(members=st.integers(2, 500), max_group=st.integers(2, 64))
def test_choose_group_returns_the_fewest_groups_of_the_allowed_size(
    members: int, max_group: int
) -> None:
    choice = choose_group(members, max_group)
    assert 2 <= choice.size <= min(members, max_group)
    assert -(-members // choice.size) >= -(-members // max_group)
    assert str(members) in choice.reason


def test_lane_of_gives_live_members_different_samples() -> None:
    everybody = ["a", "b", "c"]
    lanes = [lane_of(7, me, [other for other in everybody if other != me]) for me in everybody]
    assert {lane.index for lane in lanes} == {0, 1, 2}
    assert {(lane.base, lane.stride) for lane in lanes} == {(7 << 32, 3)}


@pytest.mark.parametrize("size", [1, 2, 63, 64, 65, 100_000])
def test_a_sketch_is_small_and_includes_both_ends(size: int) -> None:
    anchor = np.arange(size, dtype=np.float32)
    sketch = sketch_of(anchor)
    assert len(sketch) == min(size, SKETCH)
    assert (sketch[0], sketch[-1]) == (anchor[0], anchor[-1])


def test_a_whole_mean_among_equal_members_is_applied_and_reported_as_not_certified() -> None:
    decision = decide_round(averaged(member("a"), member("b"), member("c")), member("a"))
    assert decision.action == "apply"
    assert "not certified" in decision.reason


@pytest.mark.parametrize(
    ("holes", "word"),
    [
        ({"local_elements": 25}, "25%"),
        ({"missing_senders": 1}, "1 of 2"),
        ({"parts_summed": 6}, "2 of 8 pieces"),
    ],
)
def test_a_success_with_a_hole_is_not_applied(holes: dict[str, int], word: str) -> None:
    decision = decide_round(averaged(member("a"), member("b"), **holes), member("a"))
    assert decision.action == "keep"
    assert word in decision.reason


def test_a_member_with_another_anchor_than_most_downloads_theirs() -> None:
    members = (member("a"), member("b", shift=0.1), member("c", shift=0.1))
    assert decide_round(averaged(*members), members[0]).action == "others"
    assert decide_round(averaged(*members), members[1]).action == "apply"
    late = (member("a", number=5), member("b", number=9))
    assert decide_round(averaged(*late), late[0]).action == "others", (
        "the member that is behind moves"
    )
    assert decide_round(averaged(*late), late[1]).action == "apply"


def test_two_members_that_differ_agree_on_which_one_moves() -> None:
    members = (member("a"), member("b", shift=0.5))
    assert sorted(decide_round(averaged(*members), mine).action for mine in members) == [
        "apply",
        "others",
    ]


def test_rounding_does_not_make_anchors_differ() -> None:
    members = (member("a"), member("b", shift=1e-6))
    assert all(decide_round(averaged(*members), mine).action == "apply" for mine in members)


def test_members_that_do_not_run_hypergpu_are_counted() -> None:
    assert (
        "1 of them do not run HyperGPU"
        in decide_round(averaged(member("a"), member("b"), group=3), member("a")).reason
    )


def test_averager_settings_have_the_manifests_group_limits() -> None:
    settings = averager_settings(
        RUN, msgspec.structs.replace(FINE, group=Group(min_peers=3, max_group=5))
    )
    assert (settings.min_group_size, settings.group_size) == (3, 5)


def test_peer_settings_follow_from_the_nodes_network_settings() -> None:
    alone = peer_settings("127.0.0.1", 0, ())
    assert (alone.listen, alone.announce, alone.through_nat) == (
        ("/ip4/127.0.0.1/tcp/0",),
        (),
        False,
    )
    forwarded = peer_settings(
        "0.0.0.0", 4100, ("/ip4/203.0.113.7/tcp/4001", "/dns4/example.org/tcp/4001")
    )
    assert forwarded.announce == ("/ip4/203.0.113.7/tcp/4100", "/dns4/example.org/tcp/4100")
    assert forwarded.through_nat
    assert peer_settings("::", 0, ("/ip4/203.0.113.7/tcp/4001",)).listen == (
        "/ip4/0.0.0.0/tcp/0",
        "/ip6/::/tcp/0",
    )
    assert peer_settings("::", 0, ("/ip4/203.0.113.7/tcp/4001",)).announce == (), (
        "an unknown port cannot be announced"
    )
