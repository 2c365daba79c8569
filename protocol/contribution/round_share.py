"""How many rounds of training a certificate's mean holds: more than one after training alone.

A round moves the anchor by the mean of some seconds of training. A member that was alone for an
hour brings a displacement of an hour, with an hour's weight, and its offer names the number of
rounds (`Trajectory.rounds`). Two parts must not treat such a mean as that of one round:

- The outer optimizer. Its momentum and rate are made for many small steps in one direction. With a
  rate of 0.7 and a momentum of 0.9, a displacement is applied 1.33 times at once, and seven times
  over the following rounds. That leads far away from the trained parameters
  (`protocol/averaging/outer_step.py`).
- The ledger. The loss of an encoding is weight times error. Divided by the weight of the next
  round, the error of an hour would be larger than that round's work
  (`protocol/contribution/ledger.py`).

The figure is the weight of all counted offers over the weight of one round of them. So a member's
claim about its own rounds moves the figure by that member's share of the weight at most. The figure
is a function of the certificate alone, so every member computes the same.
"""

from __future__ import annotations

from collections.abc import Iterable

from protocol.messages.offer import Ready


def rounds_in(offers: Iterable[Ready], weights: Iterable[int] | None = None) -> float:
    """Return the harmonic mean of the counted offers' rounds, weighted as their mean is.

    The result is 1.0 for an ordinary round. Sums are float64, in the given order: that of the
    plan's members.

    Args:
        offers: the counted offers.
        weights: the weight of each; its samples where None.
    """
    counted = list(offers)
    each = [offer.samples for offer in counted] if weights is None else list(weights)
    total = sum(each)
    return (
        total
        / sum(weight / offer.trajectory.rounds for weight, offer in zip(each, counted, strict=True))
        if total
        else 1.0
    )
