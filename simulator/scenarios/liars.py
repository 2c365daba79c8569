"""Named stories of one peer that lies, and what honest nodes must have refused it for."""

from __future__ import annotations

from msgspec.structs import replace

from protocol.averaging.vector_layout import CHUNK_ELEMENTS
from protocol.rules.versions import RULES_4
from simulator.faults import fault as f
from simulator.faults.lies import LIES
from simulator.scenarios.story import Make, Story, Wanted

NAMED: dict[str, tuple[str, ...]] = {
    "forge": ("unsigned",),
    "steal": ("identity",),
    "garbage": ("malformed",),
    "oversize": ("oversized",),
    "wrong_bytes": ("bad_proof",),
    "wrong_sum": ("wrong_sum",),
    "split_sum": ("wrong_sum",),
    "wrong_digest": ("bad_proof",),
    "wrong_vote": ("bad_proof",),
    "double_vote": ("equivocation",),
    "two_inclusions": ("equivocation",),
    "bad_plan": ("bad_plan",),
    "usurp": ("not_leader",),
    "inflate": ("malformed",),
    "old_seq": ("duplicate",),
    "fake_certificate": ("malformed",),
    "bad_state": ("bad_proof",),
    "strangers_certify": ("bad_certificate",),
    "flood_certificates": ("busy",),
}
"""What honest nodes refuse a liar for.

A lie that is missing here cannot be distinguished from bad luck, or from the messages it replays.
"""

LEADERS_LIES = ("bad_plan", "two_inclusions")
"""Lies that only a leader can tell. Whichever node leads tells them.

A given node of five leads none of ten rounds in one world of nine.
"""

FOUND_BY_AUDIT = ("wrong_sum",)
"""Lies that an audit finds by chance: in two of three rounds of three nodes, in three minutes."""

LYING_S = 60.0


def _liar(kind: str) -> Make:
    def make(nodes: int | None, seed: int) -> Story:
        count = nodes or (3 if kind in FOUND_BY_AUDIT else 5)
        liar, lie = 1, f.ByzantineBehavior(node=1, kind=kind, at_s=8.0)
        if kind in LEADERS_LIES:
            liar, lie = (
                f.NODE_AT_STEP,
                f.ByzantineBehavior(
                    node=f.NODE_AT_STEP,
                    kind=kind,
                    when=f.FaultTrigger(enters="ready", role="leader", number=2),
                ),
            )
        schedule: tuple[f.AnyFault, ...] = (lie,)
        if kind == "bad_state":
            schedule += (
                f.Start(node=count - 1, at_s=20.0),
                *(f.Sever(node=count - 1, other=i, at_s=0.0, for_s=26.0) for i in (0, 2, 3)),
            )
        return Story(
            name=f"liar-{kind}",
            nodes=count,
            seed=seed,
            seconds=LYING_S * (3 if kind in FOUND_BY_AUDIT else 1),
            schedule=schedule,
            # With this size everybody reduces something, and can lie about it.
            parameters=2 * count * CHUNK_ELEMENTS,
            starts=tuple(range(count - 1)) if kind == "bad_state" else None,
            wanted=Wanted(
                rounds=4, refused=tuple((liar, reason) for reason in NAMED.get(kind, ()))
            ),
        )

    return make


def _remembered(nodes: int | None, seed: int) -> Story:
    """A caught liar stays excluded after its witnesses lost power and a new node joined."""
    count = max(nodes or 5, 4)
    honest = [i for i in range(count) if i != 1]
    return Story(
        name="liar-remembered",
        nodes=count,
        seed=seed,
        seconds=190.0,
        schedule=(
            f.ByzantineBehavior(node=1, kind="wrong_sum", at_s=8.0),
            *(f.Kill(node=i, at_s=120.0 + 0.1 * i, back_s=5.0) for i in honest[:-1]),
            f.Start(node=honest[-1], at_s=135.0),
        ),
        parameters=2 * count * CHUNK_ELEMENTS,
        starts=tuple(range(count - 1)),
        wanted=Wanted(rounds=12, refused=((1, "wrong_sum"),), liars_out_from_s=120.0),
    )


LIARS: dict[str, Make] = {
    # The lies of rules 4 have stories of their own (`attackers.py`).
    **{f"liar-{kind}": _liar(kind) for kind, lie in LIES.items() if lie.least_rules < RULES_4},
    "liar-remembered": _remembered,
}

UNNAMED_IN_GROUPS = (
    # With several groups the first of the two votes makes the majority, and no more votes are
    # examined.
    "liar-double_vote",
    # The result passed through several hands, and all of them are suspected.
    "liar-split_sum",
)
SUSPECTED_IN_GROUPS = ("liar-split_sum",)


def named_in_groups(name: str, wanted: Wanted) -> Wanted:
    """What is wanted of a story when it is played in several groups.

    There some liars cannot be named, and for others a suspicion is all there is.
    """
    if name not in UNNAMED_IN_GROUPS:
        return wanted
    suspected = tuple(node for node, _ in wanted.refused) if name in SUSPECTED_IN_GROUPS else ()
    return replace(wanted, refused=(), suspected=suspected)
