"""Tests the early offers: a flood from one peer replaces only that peer's offers."""

from __future__ import annotations

from daemon.services.training.native.rounds.message_translator import (
    EARLY_OF_PEER,
    EARLY_OFFERS,
    MessageTranslator,
)
from protocol.certificates.decoded_plans import DecodedPlans
from protocol.messages.base import Signed
from tests.protocol.rounds import MANIFEST, RUN


def offer(peer: str, number: int) -> Signed:
    return Signed(number.to_bytes(4, "big"), peer, bytes(64))


def test_early_offers_of_one_peer_replace_no_others() -> None:
    translator = MessageTranslator(
        RUN, DecodedPlans(RUN, MANIFEST), lambda _event, _first: None, lambda *_: None, {}
    )
    honest = offer("honest", 0)
    translator._keep_early(honest)
    for number in range(2 * EARLY_OFFERS):
        translator._keep_early(offer("flooder", number))
    assert honest in translator._early
    assert [one for one in translator._early if one.peer == "flooder"] == [
        offer("flooder", number)
        for number in range(2 * EARLY_OFFERS - EARLY_OF_PEER, 2 * EARLY_OFFERS)
    ]
