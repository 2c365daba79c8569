"""The phases of a round."""

from __future__ import annotations

from enum import Enum


class Phase(Enum):
    """What a node does in a round."""

    # Local steps until the round's end.
    TRAIN = "train"
    # The trainer hands over, the ledger encodes, the disk makes it durable.
    OFFER = "offer"
    # The view's leader has the offer; the node waits for its plan.
    READY = "ready"
    # Slices go to their reducers; the node waits for the inclusion.
    SCATTER = "scatter"
    # The node sums its slices, gathers results and computes the outer step.
    REDUCE = "reduce"
    # The vote is out; the node waits for a certificate.
    VOTE = "vote"
    # The plan or the inclusion left this node out; it waits for the others' certificate.
    WATCH = "watch"
    # The node met another branch: it downloads that branch's anchor and averages it with its own
    # into the spare buffer.
    MERGE = "merge"
    # The spare buffer becomes the anchor.
    ADOPT = "adopt"
    # The node downloads the anchor of a certificate that it did not compute. Training goes on;
    # rounds wait.
    FETCH = "fetch"
