"""Messages: a node reads exactly what was signed, and bad bytes raise only `PeerFault`."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.chain.account_binding import with_binding
from protocol.digest import digest
from protocol.errors import PeerFault
from protocol.identity import Signer
from protocol.journal import REFUSALS
from protocol.messages.base import MAX_MESSAGE_BYTES, Message, Signed
from protocol.messages.beacon import (
    MAX_SCORED_SAMPLES,
    Beacon,
    HeldOutScore,
    ScoredBeacon,
    score_of,
)
from protocol.messages.envelope import (
    _DOMAIN,
    AnyMessage,
    decode_signed,
    encode_signed,
    open_as,
    open_signed,
    payload_of,
    sign,
    signature_is_valid,
)
from protocol.messages.membership import Leave, Recovery, Revocation, Statement, TrainingOrder
from protocol.messages.offer import (
    Binding,
    BoundReady,
    DataStretch,
    Ready,
    TaskReady,
    TrustReady,
    binding_of,
    task_of,
)
from protocol.messages.round import (
    Announce,
    GroupSum,
    HoldReport,
    Inclusion,
    Plan,
    SliceResult,
    TrustPlan,
    TrustVote,
    Vote,
    Withdrawal,
)
from protocol.ports.endpoint import Endpoint
from tests.protocol.rounds import RUN, Made, named, people

ALICE, BOB, EVE = people(3)
MADE = Made(people(4))
BEACON = Beacon(
    serial=7,
    name="attic",
    role="node",
    number=3,
    tip=named("tip"),
    view=1,
    phase="train",
    samples=10,
    loss=None,
    samples_per_second=1.5,
    device="cpu",
    endpoint=Endpoint(peer=ALICE.peer, hosts=("127.0.0.1", "::1"), port=4001, certificate=b"der"),
)
SCORED = ScoredBeacon(
    **msgspec.structs.asdict(BEACON),
    score=HeldOutScore(number=3, certificate=named("tip"), loss=2.5, samples=256),
)
EXAMPLES: dict[str, Message] = {
    "beacon": BEACON,
    "scored beacon": SCORED,
    "ready": open_as(Ready, MADE.plan.offers[0], RUN),
    "bound": with_binding(
        open_as(Ready, MADE.plan.offers[0], RUN),
        Binding(public_key=bytes(33), payout=bytes(20), signature=bytes(64)),
    ),
    "ready of a task": TaskReady(
        **msgspec.structs.asdict(open_as(Ready, MADE.plan.offers[0], RUN)), task=named("task")
    ),
    "bound, of a task": with_binding(
        TaskReady(
            **msgspec.structs.asdict(open_as(Ready, MADE.plan.offers[0], RUN)), task=named("task")
        ),
        Binding(public_key=bytes(33), payout=bytes(20), signature=bytes(64)),
    ),
    "ready of rules 4": TrustReady(
        **msgspec.structs.asdict(open_as(Ready, MADE.plan.offers[0], RUN)),
        task=named("task"),
        statements=(Statement(subject=BOB.peer, favours=False),),
        invitation=b"invitation",
        data=(DataStretch(tip=named("tip"), first=3, count=40),),
    ),
    "plan of rules 2": Plan(**{name: getattr(MADE.plan, name) for name in Plan.__struct_fields__}),
    "plan": MADE.plan,
    "plan of rules 4": TrustPlan(
        **{name: getattr(MADE.plan, name) for name in MADE.plan.__struct_fields__},
        parent_votes=((BOB.peer, bytes(64)),),
        leaves=(sign(ALICE, RUN, Leave(tip=named("tip"), serial=1)),),
        revocations=(sign(ALICE, RUN, Revocation(subject=EVE.peer)),),
    ),
    "hold report": HoldReport(plan=named("plan"), contributors=(0, 3)),
    "withdrawal": Withdrawal(plan=named("plan"), reason="in a later view"),
    "inclusion": MADE.inclusion,
    "sum": GroupSum(
        plan=named("plan"), inclusion=named("inclusion"), part=3, slice=2, root=named("root")
    ),
    "result": SliceResult(
        plan=named("plan"), inclusion=named("inclusion"), slice=2, root=named("root")
    ),
    "vote": MADE.vote,
    "vote of rules 4": TrustVote(
        **msgspec.structs.asdict(MADE.vote), record=named("record"), step_norm=0.25
    ),
    "leave": Leave(tip=named("tip"), serial=3),
    "revocation": Revocation(subject=EVE.peer),
    "recovery": Recovery(serial=2, tip=named("tip"), number=7, voters=(BOB.peer,)),
    "training order": TrainingOrder(serial=4, action="pause"),
    "announce": Announce(certificate=MADE.raw()),
}
EACH = pytest.mark.parametrize("message", EXAMPLES.values(), ids=EXAMPLES)
DEEP = b"\x91" * 100_000 + b"\xc0"


def test_the_examples_cover_every_kind() -> None:
    assert {type(message) for message in EXAMPLES.values()} == set(get_args(AnyMessage))


def refused(data: bytes) -> str:
    """Check that bytes from a stream are refused, and return the reason."""
    with pytest.raises(PeerFault) as fault:
        open_signed(decode_signed(data), RUN)
    assert fault.value.reason in REFUSALS
    return fault.value.reason


def enveloped(payload: bytes, signer: Signer = ALICE) -> bytes:
    """Sign any bytes as if they were a message."""
    probe = sign(signer, RUN, BEACON)
    assert signature_is_valid(RUN, probe.payload, signer.peer, probe.signature)
    return encode_signed(Signed(payload, signer.peer, signer.sign(_DOMAIN + RUN + payload)))


@EACH
def test_round_trip(message: Message) -> None:
    signed = sign(ALICE, RUN, message)
    again = decode_signed(encode_signed(signed))
    assert again == signed
    assert open_signed(again, RUN) == message
    assert open_as(type(message), again, RUN) == message
    assert signed.digest == digest(payload_of(message))
    assert sign(ALICE, RUN, message) == signed


@EACH
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_changed_bit_is_refused(message: Message, place: float, bit: int) -> None:
    data = bytearray(encode_signed(sign(ALICE, RUN, message)))
    data[int(place * len(data))] ^= 1 << bit
    assert refused(bytes(data)) in {"unsigned", "malformed", "identity"}


@EACH
@given(at=st.floats(0, 1, exclude_max=True))
def test_truncated_or_extended_messages_are_refused(message: Message, at: float) -> None:
    data = encode_signed(sign(ALICE, RUN, message))
    assert refused(data[: int(at * len(data))]) == "malformed"
    assert refused(data + b"\0") == "malformed"


def test_a_message_of_another_run_is_refused() -> None:
    signed = sign(ALICE, named("another run"), BEACON)
    assert refused(encode_signed(signed)) == "unsigned"
    assert open_signed(signed, named("another run")) == BEACON


def test_a_signature_for_another_peer_is_refused() -> None:
    signed = sign(EVE, RUN, BEACON)
    assert (
        refused(encode_signed(Signed(signed.payload, ALICE.peer, signed.signature))) == "unsigned"
    )
    assert refused(encode_signed(Signed(signed.payload, "nobody", signed.signature))) == "identity"
    assert (
        open_signed(Signed(signed.payload, ALICE.peer, signed.signature), RUN, trusted=True)
        == BEACON
    )


def test_another_kind_is_refused() -> None:
    for kind in (Ready, Plan, Inclusion, Vote):
        with pytest.raises(PeerFault, match=f"expected a {kind.__name__}, got a Beacon"):
            open_as(kind, sign(ALICE, RUN, BEACON), RUN)
    assert refused(enveloped(msgspec.msgpack.encode(["Surprise", 1]))) == "malformed"


def test_a_message_that_is_too_large_is_refused_unread() -> None:
    assert refused(b"\0" * (MAX_MESSAGE_BYTES + 257)) == "oversized"
    assert refused(enveloped(bytes(MAX_MESSAGE_BYTES + 1))) == "malformed"
    assert refused(enveloped(bytes(MAX_MESSAGE_BYTES))) == "malformed"


def _with(message: Message, **changes: Any) -> bytes:
    return msgspec.msgpack.encode(msgspec.structs.replace(message, **changes))


def _scored(**changes: Any) -> bytes:
    """Encode a scored beacon whose score has other values, also impossible ones."""
    parts: list[Any] = msgspec.msgpack.decode(payload_of(SCORED))
    names = HeldOutScore.__struct_fields__
    for name, value in changes.items():
        parts[-1][names.index(name)] = value
    return msgspec.msgpack.encode(parts)


HOLD_REPORT, VOTE, INCLUSION = EXAMPLES["hold report"], MADE.vote, MADE.inclusion
OUT_OF_RANGE = {
    "short digest": _with(HOLD_REPORT, plan=b"\0" * 31),
    "long digest": _with(HOLD_REPORT, plan=b"\0" * 33),
    "negative member": _with(HOLD_REPORT, contributors=(-1,)),
    "member 64": _with(HOLD_REPORT, contributors=(64,)),
    "65 members": _with(HOLD_REPORT, contributors=(0,) * 65),
    "inclusion 0": _with(INCLUSION, number=0),
    "inclusion 65": _with(INCLUSION, number=65),
    "long reason": _with(INCLUSION, reason="x" * 513),
    "no parent": _with(VOTE, parents=()),
    "three parents": _with(VOTE, parents=(named("a"),) * 3),
    "negative view": _with(VOTE, view=-1),
    "view 2^63": _with(VOTE, view=1 << 63),
    "no offers": _with(MADE.plan, offers=()),
    "long name": _with(BEACON, name="x" * 65),
    "long device": _with(BEACON, device="x" * 129),
    **{
        f"held-out {field} {value}": _scored(**{field: value})
        for field, value in [
            ("loss", float("nan")),
            ("loss", float("inf")),
            ("loss", None),
            ("samples", 0),
            ("samples", -1),
            ("samples", MAX_SCORED_SAMPLES + 1),
            ("number", -1),
            ("certificate", b"short"),
        ]
    },
    "text for a number": _with(BEACON, serial="7"),
    "fraction for a number": _with(BEACON, serial=7.5),
    "one field more": msgspec.msgpack.encode([*msgspec.msgpack.decode(payload_of(HOLD_REPORT)), 1]),
    "one field less": msgspec.msgpack.encode(msgspec.msgpack.decode(payload_of(HOLD_REPORT))[:-1]),
    "no text": payload_of(BEACON).replace(b"attic", b"\xff\xfe\xff\xfe\xff"),
    "deep": DEEP,
    "deep behind": payload_of(HOLD_REPORT) + DEEP,
    "nothing": b"",
}


@pytest.mark.parametrize("payload", OUT_OF_RANGE.values(), ids=OUT_OF_RANGE)
def test_values_out_of_range_are_refused(payload: bytes) -> None:
    assert refused(enveloped(payload)) == "malformed"


def test_deep_nesting_is_refused_and_not_recursed_into() -> None:
    """Before the fix, a decoder that skipped unknown fields exhausted the stack.

    One message stopped a node.
    """
    data = encode_signed(sign(ALICE, RUN, BEACON))
    assert refused(b"\x94" + data[1:] + DEEP) == "malformed"
    assert refused(DEEP) == "malformed"
    endpoint = payload_of(BEACON).replace(b"\x84\xa4peer", b"\x85\xa1x" + DEEP + b"\xa4peer")
    assert len(endpoint) > len(DEEP)
    assert refused(enveloped(endpoint)) == "malformed"


@given(st.binary(max_size=400))
def test_noise_is_refused(data: bytes) -> None:
    assert refused(data) in {"malformed", "unsigned", "identity"}
    assert refused(enveloped(data)) == "malformed"


@EACH
@given(noise=st.binary(min_size=1, max_size=20), place=st.floats(0, 1), length=st.integers(0, 20))
def test_signed_noise_is_read_or_refused(
    message: Message, noise: bytes, place: float, length: int
) -> None:
    """Read or refuse a signed message into which a member pasted random bytes."""
    payload = payload_of(message)
    at = int(place * len(payload))
    try:
        opened = open_signed(
            decode_signed(enveloped(payload[:at] + noise + payload[at + length :])), RUN
        )
    except PeerFault as fault:
        reason = fault.reason
    else:
        reason = "malformed"
        assert isinstance(opened, Message)
    assert reason == "malformed"


def test_a_bound_offer_from_before_trajectories_is_read() -> None:
    """Certificates on disk hold such offers: the binding follows the observations directly."""
    bound = EXAMPLES["bound"]
    assert isinstance(bound, BoundReady)
    elements = msgspec.msgpack.decode(payload_of(bound))
    # The first element is the tag.
    place = [field.name for field in msgspec.structs.fields(BoundReady)].index("trajectory") + 1
    payload = msgspec.msgpack.encode(elements[:place] + elements[place + 1 :])
    signed = Signed(payload, ALICE.peer, bytes(64))
    assert open_signed(signed, RUN, trusted=True) == bound
    assert signed.digest == digest(payload), "the signed bytes name the offer"
    with pytest.raises(PeerFault, match="unknown message"):
        open_signed(Signed(payload[:-1], ALICE.peer, bytes(64)), RUN, trusted=True)


def test_a_scored_beacon_is_a_beacon_with_a_score() -> None:
    opened = open_as(Beacon, sign(ALICE, RUN, SCORED), RUN)
    assert score_of(opened) == SCORED.score
    assert score_of(BEACON) is None


def test_an_offer_of_rules_4_tells_its_task_and_its_account_like_the_others() -> None:
    offer = EXAMPLES["ready of rules 4"]
    assert isinstance(offer, TrustReady)
    binding = Binding(public_key=bytes(33), payout=bytes(20), signature=bytes(64))
    assert binding_of(offer) is None
    assert binding_of(with_binding(offer, binding)) == binding
    assert task_of(with_binding(offer, binding)) == named("task")
    assert task_of(msgspec.structs.replace(offer, task=None)) == b""


@pytest.mark.parametrize("norm", [float("nan"), float("inf"), -1.0])
def test_a_vote_with_a_step_norm_that_is_no_length_is_refused(norm: float) -> None:
    vote = EXAMPLES["vote of rules 4"]
    assert isinstance(vote, TrustVote)
    wrong = msgspec.structs.asdict(vote) | {"step_norm": norm}
    with pytest.raises(ValueError, match="a step norm of"):
        TrustVote(**wrong)
    # The norm is the last field: nine bytes.
    payload = payload_of(vote)[:-9] + msgspec.msgpack.encode(norm)
    assert refused(enveloped(payload)) == "malformed"
