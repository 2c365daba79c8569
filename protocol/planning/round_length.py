"""How long a round takes: as short as its exchange allows.

Frequent averages bring the members near one machine with their whole batch. Each average costs an
exchange. A round is therefore as short as keeps the exchange below a share of it. The plan predicts
the exchange, and its certificate carries the length of the next round: a pure function of the
lineage, equal for every member.

A prediction may be wrong, and a network may change from one round to the next. So the length
changes by at most `MOST_CHANGE` per certificate. A plan whose members' measurements contradict each
other leaves the length as it is.
"""

from __future__ import annotations

import math

from protocol.run.manifest import RoundRules

PAUSE_SHARE = 0.5
"""The part of `round.exchange_share` that remains where members wait for the exchange.

Where they train on, the exchange costs no steps, but its gradients are late. Where they wait, each
part of the share is lost.
"""

MOST_CHANGE = 1.5
"""The most by which one certificate lengthens or shortens rounds.

Ten certificates still lead from rounds of 1 s to rounds of a minute.
"""

CONTROL_S = 0.1
"""Seconds for what the plan does not predict: offers, the plan itself, and votes.

Measured: 0.09 s in a certified round of four (`bench allreduce`, control over py-libp2p).
"""

LENGTH_REASON = "rounds of "
"""How each reason for a length begins, so that a reader finds it in a plan's reason."""

GUESSED_BPS = 20e6
"""The uplink of a home, in bits a second, as in `unmeasured_choice.py`."""


def first_round_s(rules: RoundRules) -> float:
    """The length of a run's first round, in seconds.

    Nothing is measured yet. The geometric mean of the shortest and the longest round is equally
    many certificates away from both: with 2 s and 60 s it is 11 s, and five certificates lead to
    either.
    """
    if _is_fixed(rules):
        return rules.seconds
    return math.sqrt(rules.min_seconds * rules.seconds)


def round_length(left: float | None, rules: RoundRules) -> float:
    """The length of the round after a tip, in seconds. `left` is what the tip's plan left."""
    return first_round_s(rules) if left is None else left


def next_round_s(left: float | None, predicted_s: float | None, rules: RoundRules) -> float:
    """The length of the round after a certificate, in seconds.

    Args:
        left: the length that the certificate's parent left; None at genesis.
        predicted_s: the exchange as the certificate's plan predicts it; None where too little is
            measured, and for a merge, which exchanges nothing.
        rules: the manifest's bounds.
    """
    length = round_length(left, rules)
    if predicted_s is None or _is_fixed(rules):
        return length
    wanted = _wanted_s(predicted_s, rules)
    near = min(max(wanted, length / MOST_CHANGE), length * MOST_CHANGE)
    return min(max(near, rules.min_seconds), rules.seconds)


def guessed_exchange_s(offer_bytes: int, members: int) -> float:
    """Guess the exchange of members whose links were never measured.

    Each sends and gathers all slices but its own, one after the other, over a home link.
    """
    return 2 * 8 * offer_bytes * (members - 1) / members / GUESSED_BPS


def length_reason(round_s: float, predicted_s: float | None, rules: RoundRules) -> str:
    """Say why the next rounds take `round_s`, for the plan's reason."""
    if rules.steps:
        return f"{LENGTH_REASON}{rules.steps} steps, as the manifest says"
    said = f"{LENGTH_REASON}{round_s:.3g} s"
    if _is_fixed(rules):
        return f"{said}, as the manifest says"
    if predicted_s is None:
        return f"{said}: too little is measured to choose another length"
    wanted = _wanted_s(predicted_s, rules)
    why = f"{said}: the exchange takes {predicted_s:.2g} s"
    if round_s >= rules.seconds and wanted >= rules.seconds:
        return f"{why}, and no round may be longer"
    if round_s <= rules.min_seconds and wanted <= rules.min_seconds:
        return f"{why}, and no round may be shorter"
    goal = min(max(wanted, rules.min_seconds), rules.seconds)
    if not math.isclose(goal, round_s):
        return f"{why}; on the way to {goal:.3g} s"
    return f"{why}, at most {_share(rules):.0%} of a round with its control"


def length_bounds(rules: RoundRules) -> str:
    """Say how long a run's rounds may take, before any of them is planned."""
    if rules.steps:
        return f"{LENGTH_REASON}{rules.steps} steps"
    if _is_fixed(rules):
        return f"{LENGTH_REASON}{rules.seconds:g} s"
    return f"{LENGTH_REASON}{rules.min_seconds:g} to {rules.seconds:g} s"


def _share(rules: RoundRules) -> float:
    return rules.exchange_share * (1.0 if rules.overlap else PAUSE_SHARE)


def _wanted_s(predicted_s: float, rules: RoundRules) -> float:
    """The length at which exchange and control take their share of a round, without bounds."""
    return (predicted_s + CONTROL_S) / _share(rules)


def _is_fixed(rules: RoundRules) -> bool:
    """Whether all rounds are alike: counted in steps, or with one length for both bounds."""
    return bool(rules.steps) or rules.min_seconds >= rules.seconds
