"""The phases of a round."""

from __future__ import annotations

from enum import Enum


class Phase(Enum):
    """Where a node stands in a round."""

    TRAIN = "train"  # local steps, until the round's end
    # The trainer hands over, the ledger encodes, the disk makes it durable.
    OFFER = "offer"
    # The offer is with the view's leader; waiting for its plan.
    READY = "ready"
    # Slices go to their reducers; waiting for the cut.
    SCATTER = "scatter"
    # Own slices are summed, results gathered, the outer step computed.
    REDUCE = "reduce"
    # The vote is out; waiting for a certificate.
    VOTE = "vote"
    # Left out of the plan or the cut; waiting for the others' certificate.
    WATCH = "watch"
    # Another branch was met; downloading its anchor and averaging it with ours into the spare
    # buffer.
    MERGE = "merge"
    ADOPT = "adopt"  # the spare buffer becomes the anchor
    # The anchor of a certificate that this node did not compute is coming; training goes on, rounds
    # wait for it.
    FETCH = "fetch"
