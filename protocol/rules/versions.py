"""The versions of the rules that this program takes part in, and its messages about all others.

1   runs from before manifests named a version; this program only reads and exports such a run
2   rounds of one length, without schedules
3   rounds whose length follows the exchange, training during the exchange, and schedules
4   votes: founders, members and newcomers, and certificates that keys alone cannot make; the
    version of a run file that names none
"""

from __future__ import annotations

from collections.abc import Collection

from protocol.errors import UserError

FIRST_RULES = 1
"""The version of a manifest without the field `rules`."""

RULES_2 = 2
"""The first version in which a run outlives a release."""

CURRENT_RULES = 3
"""The version of a manifest that is made in Python without naming one."""

RULES_4 = 4
"""The first version in which only voters certify."""

FILE_RULES = RULES_4
"""The version of a run file that names none.

hivemind has no certificates to vote for: its files get `CURRENT_RULES`.
"""

HELD_OUT_RULES = 3
"""The first version in which some samples are held out of training."""

KNOWN_RULES: frozenset[int] = frozenset({RULES_2, CURRENT_RULES, RULES_4})
"""The versions that this program takes part in."""

# A version is a small number; anything larger is noise.
MAX_RULES = 1 << 31


def in_words(versions: Collection[int]) -> str:
    """List versions for a person: "2", "2 and 3" or "2, 3 and 4"."""
    numbers = [str(version) for version in sorted(versions)]
    return (
        " and ".join([", ".join(numbers[:-1]), numbers[-1]] if numbers[1:] else numbers)
        or "no version"
    )


def refusal(rules: int, known: Collection[int] = KNOWN_RULES) -> str:
    """Why a program that knows `known` cannot take part in a run of `rules`; empty where it can."""
    if rules in known:
        return ""
    advice = (
        "Upgrade hypergpu."
        if rules > max(known, default=0)
        else "This program only reads such a run."
    )
    return f"This run uses rules {rules}; this program knows rules {in_words(known)}. {advice}"


def check_rules(
    rules: int, run: str, known: Collection[int] = KNOWN_RULES, *, of_home: bool = True
) -> None:
    """Raises `UserError("RULES")` where a program that knows `known` cannot take part in a run.

    `run` is the beginning of its id; `of_home` says that its files are in this home, else it is the
    run of a node that was asked.
    """
    if not (what := refusal(rules, known)):
        return
    if rules > max(known, default=0):
        why = "members that plan by different rules never certify a round together"
        fix = (
            f"install a hypergpu that knows rules {rules}, then start again; "
            "nothing in this home was changed"
        )
    else:
        first = min(known, default=CURRENT_RULES)
        why = f"runs continue from one release to the next from rules {first} on"
        begin = "hypergpud start --run FILE, or hypergpud start --home OTHER"
        fix = f"join a run of rules {in_words(known)}, or begin one: {begin}"
        if of_home:
            fix = (
                f"hypergpud export {run} model.safetensors   (writes its model to a file), "
                f"then begin a new run: {begin}"
            )
    raise UserError("RULES", what, why=why, fix=fix, exit_code=2)
