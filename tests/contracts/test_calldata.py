"""The precompiles' calldata, byte for byte."""

from __future__ import annotations

import pytest

from contracts.calldata import (
    claim_calldata,
    claim_proof_calldata,
    heartbeat_calldata,
    heartbeat_figures_calldata,
    inference_calldata,
    name_word,
    register_calldata,
)
from protocol.chain.port import InferenceRecord

AGENT = "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf"
PADDED = "000000000000000000000000" + "7e5f4552091a69125d5dfcb7b8c2659029395bdf"


def test_register_is_name_model_count_capabilities_and_the_agent_last() -> None:
    model, one, two = b"\x11" * 32, b"\x22" * 32, b"\x33" * 32
    plain = register_calldata("node-1", model, [one, two])
    assert (
        plain.hex()
        == "6e6f64652d31" + "00" * 26 + "11" * 32 + "00" * 31 + "02" + "22" * 32 + "33" * 32
    )
    assert register_calldata("node-1", model, [one, two], AGENT).hex() == plain.hex() + PADDED
    assert register_calldata("", model, []).hex() == "00" * 32 + "11" * 32 + "00" * 32


def test_inference_is_model_inputs_outputs_agent_and_tokens() -> None:
    record = InferenceRecord(
        model=b"\x11" * 32, inputs=b"\x22" * 32, outputs=b"\x33" * 32, tokens=258
    )
    made = inference_calldata(record, AGENT)
    assert len(made) == 160
    assert made.hex() == "11" * 32 + "22" * 32 + "33" * 32 + PADDED + "00" * 30 + "0102"


def test_heartbeat_and_claim_are_empty_or_one_left_padded_address() -> None:
    assert heartbeat_calldata() == claim_calldata() == b""
    assert heartbeat_calldata(AGENT).hex() == claim_calldata(AGENT).hex() == PADDED


def test_our_fields_follow_the_address() -> None:
    assert (
        heartbeat_figures_calldata(AGENT, 258, b"\xcc" * 32).hex()
        == PADDED + "00" * 30 + "0102" + "cc" * 32
    )
    assert (
        claim_proof_calldata(AGENT, 1, [b"\xdd" * 32]).hex()
        == PADDED + "00" * 31 + "01" + "dd" * 32
    )


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("a" * 40, "a" * 32),
        ("ü" * 17, "ü" * 16),
        # 33 bytes: the last ü would be cut in the middle.
        ("a" + "ü" * 16, "a" + "ü" * 15),
        ("a" * 30 + "€", "a" * 30),
        ("a" * 29 + "€", "a" * 29 + "€"),
        ("a" * 29 + "😀", "a" * 29),
    ],
)
def test_a_long_name_is_truncated_between_two_characters(name: str, kept: str) -> None:
    word = name_word(name)
    assert len(word) == 32
    assert word.rstrip(b"\0").decode() == kept


def test_a_hash_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes, not 31"):
        register_calldata("x", b"\0" * 31, [])
