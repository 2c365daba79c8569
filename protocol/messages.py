"""What nodes say to each other, and the signature around it.

Every message travels as `Signed`: the bytes of one `Message`, its sender and the sender's Ed25519
signature over domain, run id and bytes. Everything named by a digest is named by the digest of the
bytes that were signed, never of a re-encoding.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from protocol.digest import Digest, digest
from protocol.errors import PeerFault
from protocol.identity import PeerId, Signer, verify
from protocol.network.coordinate import Coordinate
from protocol.network.peer_observation import MAX_OBSERVATIONS, PeerObservation
from protocol.planning.group_size_history import GroupSizeHistory
from protocol.ports import Endpoint
from protocol.run.manifest import MAX_GROUP_LIMIT
from protocol.run.task_digest import Name

MAX_DRAWN = 1 << 32
"""Samples that an offer may say it drew. What one says moves everybody's lanes: at this bound 63 bits of positions last for millions of rounds."""
MAX_ROUNDS = 1 << 20
"""Rounds of training that an offer may say it holds: two months of rounds of 5 s."""
# A plan of 64 offers of about 700 bytes is 45 KB; room for rows to come.
MAX_MESSAGE_BYTES = 1 << 18
MAX_NAME_CHARS = 64
MAX_REASON_CHARS = 512
_DOMAIN = b"hypergpu/message/1\0"

Hash = Annotated[bytes, Meta(min_length=32, max_length=32)]
Text = Annotated[str, Meta(max_length=MAX_NAME_CHARS)]
Id = Annotated[str, Meta(max_length=60)]
Natural = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Index = Annotated[int, Meta(ge=0, lt=MAX_GROUP_LIMIT)]
Indices = Annotated[tuple[Index, ...], Meta(max_length=MAX_GROUP_LIMIT)]
Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]


class Signed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A message as it travels. Nothing in it is believed before `open_signed`."""

    payload: Annotated[bytes, Meta(max_length=MAX_MESSAGE_BYTES)]
    peer: Id
    signature: Signature

    @property
    def digest(self) -> Digest:
        """What plans and cuts are named by."""
        return digest(self.payload)


class Message(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag=True, forbid_unknown_fields=True
):
    """Base of all messages."""


class Beacon(
    Message, frozen=True, kw_only=True, array_like=True, tag=True, forbid_unknown_fields=True
):
    """Who I am and where I stand; gossiped every few seconds.

    `serial` grows: an older beacon never replaces a newer one.
    """

    serial: Natural
    name: Text
    role: Text
    number: Natural  # of the tip
    tip: Hash
    view: Natural
    phase: Text
    samples: Natural
    loss: float | None
    samples_per_second: float
    device: Annotated[str, Meta(max_length=128)]
    endpoint: Endpoint | None  # None for an observer
    # The name of the task as this node has it (`protocol/run/task_digest.py`); empty while its worker
    # starts, and for an observer.
    task: Name = b""


class Binding(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """Whose work an offer is, and who is paid (`protocol/chain/account_binding.py`). 121 bytes on the wire."""

    public_key: Annotated[bytes, Meta(min_length=33, max_length=33)]  # of the wallet, compressed
    payout: Annotated[bytes, Meta(min_length=20, max_length=20)]
    signature: Signature  # r ‖ s


class Trajectory(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """How far an offer's sender went from the parent's anchor."""

    # Samples that it used of its lane (`Tip.lane`).
    drawn: Annotated[int, Meta(ge=0, le=MAX_DRAWN)] = 0
    # Of training behind what it offers (`protocol/contribution/round_share.py`).
    rounds: Annotated[int, Meta(ge=1, le=MAX_ROUNDS)] = 1


class FirstReady(
    Message, frozen=True, kw_only=True, array_like=True, tag=True, forbid_unknown_fields=True
):
    """What offers held from the first version on. Not sent: `Ready` and its kinds are."""

    parent: Hash
    view: Natural
    # Of the certificate that this round would make.
    number: Natural
    seq: Natural
    samples: Natural
    contribution: Hash
    loss: float | None
    fingerprint: Hash  # of the bulk endpoint's certificate
    # Measured bits a second; 0 when not measured yet.
    uplink_bps: Natural
    downlink_bps: Natural
    coordinate: Coordinate | None = None  # None before anything was measured
    # What it measured of a few others.
    sights: Annotated[tuple[PeerObservation, ...], Meta(max_length=MAX_OBSERVATIONS)] = ()


class Ready(
    FirstReady, frozen=True, kw_only=True, array_like=True, tag=True, forbid_unknown_fields=True
):
    """The offer of one node to one round and view.

    `seq` and `samples` are 0 when it has nothing to offer but will reduce and vote.
    """

    trajectory: Trajectory = Trajectory()


class FirstBoundReady(
    FirstReady,
    frozen=True,
    kw_only=True,
    array_like=True,
    tag="BoundReady",
    forbid_unknown_fields=True,
):
    """A bound offer as it was before offers had a trajectory, whose place comes before the
    binding's: read in old certificates, never sent.
    """

    binding: Binding


class BoundReady(
    Ready, frozen=True, kw_only=True, array_like=True, tag=True, forbid_unknown_fields=True
):
    """An offer that says whose work it is.

    A kind of its own: an optional field would put a byte into every offer of every run without a
    chain, and change what those sign. An offer without a binding counts, and is nobody's to be paid
    for.
    """

    binding: Binding


class TaskReady(
    Ready, frozen=True, kw_only=True, array_like=True, tag=True, forbid_unknown_fields=True
):
    """An offer that names the task it was trained for.

    A kind of its own, as `BoundReady` is, so that offers on disk keep their bytes.
    """

    task: Name


class BoundTaskReady(
    BoundReady, frozen=True, kw_only=True, array_like=True, tag=True, forbid_unknown_fields=True
):
    """An offer that says whose work it is, and for which task."""

    task: Name


def task_of(offer: Ready) -> bytes:
    """The name of the task that an offer was trained for; empty where the offer does not say."""
    return offer.task if isinstance(offer, TaskReady | BoundTaskReady) else b""


class Plan(
    Message, frozen=True, kw_only=True, array_like=True, tag=True, forbid_unknown_fields=True
):
    """Who averages with whom.

    Members are the senders of `offers`, in ascending order of peer id, and are meant by their index
    there.

    `rows` has every member once. The member at position k of a row has rank k: of what its row
    contributes it reduces chunks `[borders[k], borders[k + 1])` unless a Cut says otherwise. The
    ranks are as many as the smallest row has members, and whoever stands further back in a longer
    one reduces nothing. With one row a member's rank is its index.
    """

    parent: Hash
    view: Natural
    number: Natural
    offers: Annotated[tuple[Signed, ...], Meta(min_length=1, max_length=MAX_GROUP_LIMIT)]
    borders: Annotated[tuple[Natural, ...], Meta(max_length=MAX_GROUP_LIMIT + 1)]
    rows: Annotated[tuple[Indices, ...], Meta(min_length=1, max_length=MAX_GROUP_LIMIT)]
    # Of the whole exchange; None where too little is measured to tell.
    predicted_s: Annotated[float, Meta(ge=0)] | None = None
    reason: Annotated[str, Meta(max_length=MAX_REASON_CHARS)]
    # What the parent's plan left, by which sizes are kept; None where it left nothing.
    before: GroupSizeHistory | None = None
    after: GroupSizeHistory | None = None  # what this one leaves


class HoldReport(
    Message, frozen=True, kw_only=True, array_like=True, tag="Held", forbid_unknown_fields=True
):
    """A reducer to the leader: these members' contributions I hold whole, checked against their
    offers.
    """

    plan: Hash
    contributors: Indices


class Withdrawal(
    Message, frozen=True, kw_only=True, array_like=True, tag=True, forbid_unknown_fields=True
):
    """A member of a plan to the others: I take no part in it. Nobody needs to wait for me there."""

    plan: Hash
    reason: Annotated[str, Meta(max_length=MAX_REASON_CHARS)]


class Inclusion(
    Message, frozen=True, kw_only=True, array_like=True, tag="Cut", forbid_unknown_fields=True
):
    """The leader closes the set of included contributions.

    `owners[i]` does what the plan has member i reduce. Cut n+1 replaces Cut n.
    """

    plan: Hash
    number: Annotated[int, Meta(ge=1, le=MAX_GROUP_LIMIT)]
    contributors: Indices
    # Members the leader has reason to think alive: they lead the rounds after this one.
    present: Indices
    owners: Indices
    reason: Annotated[str, Meta(max_length=MAX_REASON_CHARS)]


class GroupSum(
    Message, frozen=True, kw_only=True, array_like=True, tag="RowSum", forbid_unknown_fields=True
):
    """A reducer signs the digest of what it summed over member `part`'s row of slice `slice`, which
    somebody of the same rank finishes.

    The bytes follow on the bulk stream: the row's mean in float32, whose weight the cut tells.
    """

    plan: Hash
    cut: Hash
    part: Index
    slice: Index
    root: Hash


class SliceResult(
    Message, frozen=True, kw_only=True, array_like=True, tag=True, forbid_unknown_fields=True
):
    """A reducer signs the digest of its slice's encoded mean.

    The bytes follow on the bulk stream.
    """

    plan: Hash
    cut: Hash
    slice: Index
    root: Hash


class Vote(
    Message, frozen=True, kw_only=True, array_like=True, tag=True, forbid_unknown_fields=True
):
    """The outcome I would move to.

    All votes for one outcome are the same bytes, whose digest names the certificate.
    """

    parents: Annotated[tuple[Hash, ...], Meta(min_length=1, max_length=2)]
    number: Natural
    view: Natural
    plan: Hash
    cut: Hash
    result: Hash
    state: Hash


class Announce(
    Message, frozen=True, kw_only=True, array_like=True, tag=True, forbid_unknown_fields=True
):
    """Carries a certificate to those who may not have seen it; the certificate proves itself."""

    certificate: Annotated[bytes, Meta(max_length=MAX_MESSAGE_BYTES)]


AnyMessage = (
    Beacon
    | Ready
    | BoundReady
    | TaskReady
    | BoundTaskReady
    | Plan
    | HoldReport
    | Withdrawal
    | Inclusion
    | GroupSum
    | SliceResult
    | Vote
    | Announce
)
M = TypeVar("M", bound=Message)

UNREADABLE = (msgspec.DecodeError, ValueError, RecursionError)
"""What msgspec raises for bytes from outside: UnicodeDecodeError is a ValueError, and skipping deep nesting exhausts the stack."""

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[AnyMessage] = msgspec.msgpack.Decoder(AnyMessage)
_first_bound_decoder: msgspec.msgpack.Decoder[FirstBoundReady] = msgspec.msgpack.Decoder(
    FirstBoundReady
)
_signed_decoder = msgspec.msgpack.Decoder(Signed)


def sign(signer: Signer, run: Digest, message: Message) -> Signed:
    """The message in its envelope, valid in one run only."""
    payload = _encoder.encode(message)
    return Signed(payload, signer.peer, signer.sign(_DOMAIN + run + payload))


def payload_of(message: Message) -> bytes:
    """The bytes that are signed; deterministic for equal messages."""
    return _encoder.encode(message)


def signature_is_valid(run: Digest, payload: bytes, peer: PeerId, signature: bytes) -> bool:
    """Whether `peer` signed `payload` as a message of this run."""
    return verify(peer, signature, _DOMAIN + run + payload)


def encode_signed(signed: Signed) -> bytes:
    return _encoder.encode(signed)


def decode_signed(data: bytes) -> Signed:
    """Raises `PeerFault("oversized" | "malformed")`."""
    if len(data) > MAX_MESSAGE_BYTES + 256:
        raise PeerFault(
            "oversized", f"a message of {len(data)} bytes where {MAX_MESSAGE_BYTES} are allowed"
        )
    try:
        return _signed_decoder.decode(data)
    except UNREADABLE as error:
        raise PeerFault("malformed", f"not a signed message: {error}") from None


def open_signed(signed: Signed, run: Digest, *, trusted: bool = False) -> AnyMessage:
    """The message inside. Raises `PeerFault("unsigned" | "malformed" | "identity")`.

    `trusted` skips the signature: for what this node verified once and read back from its own disk.
    """
    if not trusted and not signature_is_valid(run, signed.payload, signed.peer, signed.signature):
        raise PeerFault(
            "unsigned", f"the signature of {signed.peer} does not fit this message and run"
        )
    try:
        return _decoder.decode(signed.payload)
    except UNREADABLE as error:
        first = _first_bound(signed.payload)
        if first is not None:
            return first
        raise PeerFault("malformed", f"{signed.peer} signed what is no message: {error}") from None


def _first_bound(payload: bytes) -> BoundReady | None:
    """An offer that names a wallet, from before offers had a trajectory."""
    try:
        return BoundReady(**msgspec.structs.asdict(_first_bound_decoder.decode(payload)))
    except UNREADABLE:
        return None


def open_as(kind: type[M], signed: Signed, run: Digest, *, trusted: bool = False) -> M:
    """The message inside, which must be of `kind`. Raises `PeerFault`."""
    message = open_signed(signed, run, trusted=trusted)
    if not isinstance(message, kind):
        raise PeerFault("malformed", f"a {type(message).__name__} where a {kind.__name__} belongs")
    return message
