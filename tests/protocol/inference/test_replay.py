"""The replay log, the wire's form of chunks, and messages that are garbage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import PeerFault
from protocol.inference.activations import (
    decode_activations,
    decode_tokens,
    encode_activations,
    encode_tokens,
    split_chunks,
)
from protocol.inference.messages import (
    MAX_STEP_TOKENS,
    StepGeneration,
    decode_reply,
    decode_request,
    encode,
    max_logit_rows,
    max_message_bytes,
)
from protocol.inference.replay_log import ReplayLog


def log_of(shapes: list[int]) -> ReplayLog:
    """A log of a model with 4 layers in two stages, with one byte for each token."""
    log = ReplayLog(4)
    for number, tokens in enumerate(shapes):
        log.add(0, tokens, bytes([number]) * tokens)
        log.add(2, tokens, bytes([number + 100]) * tokens)
        log.add_digest(4, tokens, bytes([number]) * 32)
    return log


@given(st.lists(st.integers(1, 300), min_size=1, max_size=20))
def test_replay_repeats_the_chunks_in_their_shapes(shapes: list[int]) -> None:
    log, total = log_of(shapes), sum(shapes)
    steps = list(log.steps(0, 2, total))
    assert [size for step in steps for size in step.shapes] == shapes
    assert all(sum(step.shapes) <= MAX_STEP_TOKENS for step in steps)
    assert [step.position for step in steps] == [
        sum(sum(before.shapes) for before in steps[:index]) for index in range(len(steps))
    ]
    assert all(len(step.expected) == len(step.shapes) for step in steps)


def test_replay_leaves_out_the_chunk_that_is_not_answered() -> None:
    log = log_of([5, 1])
    log.add(0, 1, b"x")
    (step,) = log.steps(0, 2, 6)
    assert (step.shapes, step.data) == ((5, 1), bytes(5) + b"\x01")
    assert not list(log.steps(0, 2, 0))


def test_merged_replay_is_one_chunk_without_expectations() -> None:
    (step,) = log_of([5, 1, 1]).steps(2, 4, 7, merged=True)
    assert (step.shapes, step.expected) == ((7,), ())


def test_replay_log_keeps_no_logits() -> None:
    log = ReplayLog(4)
    log.add(4, 1, b"logits")
    assert log._chunks[4][0].data == b""


def test_activations_travel_as_they_are_or_halved() -> None:
    values = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    whole = decode_activations(encode_activations(values, "float32"), "float32", 4)
    assert whole.tobytes() == values.tobytes()
    halved = decode_activations(encode_activations(values, "float16"), "float16", 4)
    assert np.allclose(halved, values, atol=2e-3)
    ids = np.array([0, 5, 49_151], np.int32)
    assert decode_tokens(encode_tokens(ids)).tolist() == ids.tolist()
    assert [len(part) for part in split_chunks(ids, (2, 1))] == [2, 1]


def test_activations_refuse_parts_of_rows_and_values_that_are_not_finite() -> None:
    for data in (b"", bytes(15), bytes(17)):
        with pytest.raises(PeerFault, match="no rows"):
            decode_activations(data, "float32", 4)
    endless = encode_activations(np.array([[1e30, 0, 0, 0]], np.float32), "float16")
    with pytest.raises(PeerFault, match="not finite"):
        decode_activations(endless, "float16", 4)
    with pytest.raises(PeerFault, match="token ids"):
        decode_tokens(bytes(3))


@given(st.binary(max_size=200))
def test_messages_refuse_garbage(data: bytes) -> None:
    for decode in (decode_request, decode_reply):
        with pytest.raises(PeerFault):
            decode(data)


def test_step_refuses_too_many_tokens() -> None:
    step = StepGeneration(
        number=1, generation=bytes(16), attempt=1, position=0, shapes=(400, 200), data=b""
    )
    with pytest.raises(PeerFault, match="600 tokens"):
        decode_request(encode(step))


def test_largest_message_fits_its_limit() -> None:
    width, vocabulary = 576, 49_152
    step = StepGeneration(
        number=1 << 62,
        generation=bytes(16),
        attempt=1 << 30,
        position=1 << 62,
        shapes=(1,) * MAX_STEP_TOKENS,
        data=bytes(4 * width * MAX_STEP_TOKENS),
    )
    assert len(encode(step)) <= max_message_bytes(width, vocabulary)
    assert max_logit_rows(vocabulary) * vocabulary * 4 <= max_message_bytes(width, vocabulary)
    assert max_logit_rows(1 << 22) == 1
