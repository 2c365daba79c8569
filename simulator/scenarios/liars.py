"""Named stories of one peer that lies: what the honest must have refused it for, alone in a row and
where results pass through several hands.
"""

from __future__ import annotations

from msgspec.structs import replace

from protocol.averaging.vector_layout import CHUNK_ELEMENTS
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
    "two_cuts": ("equivocation",),
    "bad_plan": ("bad_plan",),
    "usurp": ("not_leader",),
    "inflate": ("malformed",),
    "old_seq": ("duplicate",),
    "fake_certificate": ("malformed",),
    "bad_state": ("bad_proof",),
}
"""What the honest refuse a liar for. A lie that is not here cannot be told from bad luck, or from what it replays."""

TOLD_BY_LEADERS = ("bad_plan", "two_cuts")
"""Lies that only a leader can tell: told by whoever leads, since in ten rounds of five a given node leads none in one world of nine."""

CHANCY = ("wrong_sum",)
"""Lies that come to light when somebody looks: of three, each in two rounds of three, within three minutes."""

LYING_S = 60.0


def _liar(kind: str) -> Make:
    def make(nodes: int | None, seed: int) -> Story:
        count = nodes or (3 if kind in CHANCY else 5)
        liar, lie = 1, f.ByzantineBehavior(node=1, kind=kind, at_s=8.0)
        if kind in TOLD_BY_LEADERS:
            liar, lie = (
                f.WHOEVER,
                f.ByzantineBehavior(
                    node=f.WHOEVER,
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
            seconds=LYING_S * (3 if kind in CHANCY else 1),
            schedule=schedule,
            # So that everybody reduces something, and can lie about it.
            parameters=2 * count * CHUNK_ELEMENTS,
            starts=tuple(range(count - 1)) if kind == "bad_state" else None,
            wanted=Wanted(
                rounds=4, refused=tuple((liar, reason) for reason in NAMED.get(kind, ()))
            ),
        )

    return make


def _remembered(nodes: int | None, seed: int) -> Story:
    """A liar is caught.

    Then all who caught it lose power and come back, and somebody new joins: nobody works with it
    any more.
    """
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
    **{f"liar-{kind}": _liar(kind) for kind in LIES},
    "liar-remembered": _remembered,
}

UNNAMED_IN_ROWS = (
    # In rows the first of the two makes the majority, and no more votes are looked at.
    "liar-double_vote",
    # A result that passed through several hands: all of them are suspected.
    "liar-split_sum",
)
SUSPECTED_IN_ROWS = ("liar-split_sum",)


def named_in_rows(name: str, wanted: Wanted) -> Wanted:
    """What is wanted of a story when it is told again in several rows: some liars cannot be named
    there, of some a suspicion is all there is.
    """
    if name not in UNNAMED_IN_ROWS:
        return wanted
    suspected = tuple(node for node, _ in wanted.refused) if name in SUSPECTED_IN_ROWS else ()
    return replace(wanted, refused=(), suspected=suspected)
