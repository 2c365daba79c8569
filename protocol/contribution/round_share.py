"""How many rounds of training a certificate's mean holds: more than one after training alone.

A round moves the anchor by the mean of some seconds of training. A member that was alone for an
hour brings a displacement of an hour, with an hour's weight, and says in its offer of how many
rounds it is (`Trajectory.rounds`). Two things must not take such a mean for that of one round:

- the outer optimizer. Its momentum and rate are made for many small steps in one direction: 0.7 and 0.9 make 1.33 of a displacement at once and seven
  of it in the rounds that follow. That leads far away from the parameters that were trained (`protocol/averaging/outer_step.py`).
- the ledger. What encoding lost is weight times error. Divided by the weight of the next round, the error of an hour would be larger than that
  round's work (`protocol/contribution/ledger.py`).

The figure is the weight of all that is counted over the weight of one round of it: what a member
says of its own rounds moves it by that member's share of the weight at most. It is a function of
the certificate alone, so that every member finds the same.
"""

from __future__ import annotations

from collections.abc import Iterable

from protocol.messages.offer import Ready


def rounds_in(offers: Iterable[Ready]) -> float:
    """The harmonic mean of the counted offers' rounds, weighted by their samples; 1.0 for an
    ordinary round.

    Sums in float64, in the order given: the order of the plan's members.
    """
    counted = list(offers)
    samples = sum(offer.samples for offer in counted)
    return (
        samples / sum(offer.samples / offer.trajectory.rounds for offer in counted)
        if samples
        else 1.0
    )
