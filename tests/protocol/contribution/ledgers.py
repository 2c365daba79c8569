"""Ledgers of a small model for the tests of the ledger."""

from __future__ import annotations

import numpy as np

from protocol.codec import Codec, codec_named
from protocol.contribution.ledger import Ledger
from protocol.contribution.offer import Offer
from tests.protocol.rounds import named

PARAMETERS = 24
CAP, CARRY = 40, 3
RUN, TIP = named("run"), named("tip")
Sum = np.ndarray
"""The result of exact arithmetic, float64, shape (parameters,)."""


def new_ledger(
    codec: Codec | None = None, parameters: int = PARAMETERS, cap: int = CAP, carry: int = CARRY
) -> Ledger:
    return Ledger(parameters, codec or codec_named("float32"), cap, carry)


def decoded(ledger: Ledger, offer: Offer) -> Sum:
    out = np.empty(PARAMETERS, np.float32)
    ledger.codec.decode(offer.encoded, out)
    return out.astype(np.float64)


def constant(value: float) -> np.ndarray:
    return np.full(PARAMETERS, value, np.float32)
