"""Commitments and receipts: what they bind, and which forgeries are refused."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from protocol.errors import PeerFault
from protocol.identity import Signer
from protocol.inference.layers import LayerRange
from protocol.inference.receipt import (
    ServiceReceipt,
    SignedReceipt,
    check_receipt,
    countersign,
    decode_receipt,
    encode_receipt,
    sign_receipt,
)
from protocol.inference.span import SPAN_TOKENS, SpanDigests, check_commitment, sign_span

STAGE, PAYER, OTHER = (Signer(bytes([number]) * 32) for number in (1, 2, 3))
NAME, LAYERS = b"n" * 16, LayerRange(first=2, stop=4)
RECEIPT = ServiceReceipt(
    model=b"m" * 32,
    payer=PAYER.peer,
    stage=STAGE.peer,
    session=OTHER.peer,
    requests=1,
    tokens=40,
    layer_tokens=80,
    busy_ms=700,
)


def spans_of(*chunks: tuple[int, bytes, bytes]) -> SpanDigests:
    spans = SpanDigests()
    for tokens, given, result in chunks:
        spans = spans.add(tokens, given * 32, result * 32)
    return spans


def test_span_digests_depend_on_every_chunk_and_their_order() -> None:
    one, two = (1, b"a", b"x"), (1, b"b", b"y")
    assert spans_of(one, two) == spans_of(one, two)
    assert spans_of(one, two) != spans_of(two, one)
    assert spans_of(one) != spans_of(one, two)


def test_span_ends_at_multiples_of_its_length() -> None:
    before = spans_of((SPAN_TOKENS - 1, b"a", b"x"))
    assert not before.ends_span(SpanDigests())
    assert before.add(1, b"b" * 32, b"y" * 32).ends_span(before)
    assert spans_of((5 * SPAN_TOKENS + 3, b"a", b"x")).ends_span(SpanDigests())


def test_commitment_fits_only_what_was_computed() -> None:
    spans = spans_of((32, b"a", b"x"))
    made = sign_span(NAME, LAYERS, spans, STAGE)
    check_commitment(made, STAGE.peer, NAME, LAYERS, spans)
    with pytest.raises(PeerFault, match="other results than travelled"):
        check_commitment(made, STAGE.peer, NAME, LAYERS, spans_of((32, b"a", b"z")))
    with pytest.raises(PeerFault, match="other inputs than travelled"):
        check_commitment(made, STAGE.peer, NAME, LAYERS, spans_of((32, b"b", b"x")))
    for stage, name, layers in (
        (OTHER.peer, NAME, LAYERS),
        (STAGE.peer, b"m" * 16, LAYERS),
        (STAGE.peer, NAME, LayerRange(first=2, stop=5)),
    ):
        with pytest.raises(PeerFault, match="another signature"):
            check_commitment(made, stage, name, layers, spans)
    for garbage in (b"", b"\xc1", made[:-1], bytes(200)):
        with pytest.raises(PeerFault, match="not a commitment"):
            check_commitment(garbage, STAGE.peer, NAME, LAYERS, spans)


def test_receipt_has_the_signatures_of_payer_and_stage() -> None:
    signed = sign_receipt(RECEIPT, PAYER)
    assert signed.open() == RECEIPT
    with pytest.raises(PeerFault, match="its stage's"):
        signed.open_countersigned()
    both = decode_receipt(encode_receipt(countersign(signed, STAGE)))
    assert both.open_countersigned() == RECEIPT
    forged = sign_receipt(replace(RECEIPT, tokens=41), PAYER).payload
    with pytest.raises(PeerFault, match="its payer's"):
        replace(both, payload=forged).open()
    with pytest.raises(PeerFault, match="its payer's"):
        sign_receipt(RECEIPT, OTHER).open()
    with pytest.raises(PeerFault, match="its stage's"):
        countersign(signed, OTHER).open_countersigned()
    with pytest.raises(PeerFault, match="not a receipt"):
        SignedReceipt(payload=b"\xc1", payer_signature=bytes(64)).open()
    with pytest.raises(PeerFault, match="not a signed receipt"):
        decode_receipt(b"\xff")


def test_stage_checks_whose_work_a_receipt_names() -> None:
    mine = {"model": RECEIPT.model, "stage": STAGE.peer, "session": OTHER.peer}
    check_receipt(RECEIPT, **mine, layer_tokens=80)  # type: ignore[arg-type]
    with pytest.raises(PeerFault, match="80 tokens x layers, of which 79 were computed"):
        check_receipt(RECEIPT, **mine, layer_tokens=79)  # type: ignore[arg-type]
    for changed in ({"model": b"o" * 32}, {"stage": OTHER.peer}, {"session": STAGE.peer}):
        with pytest.raises(PeerFault, match="another model, stage or session"):
            check_receipt(RECEIPT, **{**mine, **changed}, layer_tokens=80)  # type: ignore[arg-type]
