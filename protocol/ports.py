"""The ports: what a node needs of the world, as small protocols.

The real ones live in `daemon/`, the fakes in `simulator/`.

Every port has a property suite in `tests/ports/` that the real implementation and the fake both
pass. The port that is a chain is in `protocol/chain/port.py`, with what is said to it. Nothing in this
module acts; nothing in `protocol/` or `daemon/node/` knows which implementation it was given.
"""

from __future__ import annotations

from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterator,
    Mapping,
    Sequence,
)
from typing import Annotated, Any, Protocol, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from protocol.digest import Buffer, Digest
from protocol.errors import UserError
from protocol.identity import PeerId
from protocol.run.task_digest import TaskDigest

Vector = npt.NDArray[np.float32]
"""A flat float32 vector, shape (parameters,)."""

T = TypeVar("T")


# ------------------------------------------------------------------------------------------------ network


# Of one endpoint: interfaces, a public address and a name, with room.
MAX_HOSTS = 8
MAX_HOST_CHARS = 253  # a DNS name (RFC 1035)
# Ours have 256 bytes; one with an RSA key of 4,096 bits has 1,300.
MAX_CERTIFICATE_BYTES = 2048


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where a peer takes bulk streams: its addresses and the exact certificate it will show.

    `hosts` are tried in order; `certificate` is the self-signed X.509 certificate in DER. An
    endpoint is only believed when it arrives inside something its peer signed.
    """

    peer: Annotated[PeerId, Meta(max_length=60)]
    hosts: Annotated[
        tuple[Annotated[str, Meta(max_length=MAX_HOST_CHARS)], ...], Meta(max_length=MAX_HOSTS)
    ]
    port: Annotated[int, Meta(ge=0, le=65_535)]
    certificate: Annotated[bytes, Meta(max_length=MAX_CERTIFICATE_BYTES)]


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """What is measured of a live connection. `rtt_s` is None until the first measurement."""

    peer: PeerId
    # "direct" or "relay"; "stream" where bulk bytes go over this connection because there is no
    # direct path for them.
    path: str
    address: str
    rtt_s: float | None
    since_s: float  # on the network's monotonic clock
    # The median distance of the last round trips from their median; None where too few are known.
    jitter_s: float | None = None
    # Of data sent to it, over all connections open now, where the system counts them.
    segments: int = 0
    again: int = 0  # of them, those that had to be sent again


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where a peer comes from. Keys are free; addresses cost something."""

    # Of its address (`daemon/network/limits/prefixes.py`), "" where it is not known.
    prefix: str
    # A member by our certificates, or a peer that the user named.
    matters: bool


class LinkChange(msgspec.Struct, frozen=True, kw_only=True):
    """A peer became reachable (`up`) or was lost; `reason` is one sentence."""

    peer: PeerId
    up: bool
    reason: str


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes moved since the start, payload as the application sees it, per plane (`control` is
    libp2p, `bulk` is TLS).
    """

    control_sent: int = 0
    control_received: int = 0
    bulk_sent: int = 0
    bulk_received: int = 0


class ByteStream(Protocol):
    """An ordered, reliable, encrypted two-way byte stream to one authenticated peer.

    Guarantees: `peer` is who holds the key of that id (bulk: whose exact certificate was shown).
    Bytes arrive in order or the stream breaks. Does not guarantee: that bytes sent were received;
    only an answer proves that.
    """

    @property
    def peer(self) -> PeerId: ...

    async def send_all(self, data: bytes | memoryview) -> None:
        """Send everything; waits while the other side is not reading.

        Raises `Unreachable` when the stream is broken.
        """

    async def receive_some(self, max_bytes: int) -> bytes:
        """1 to `max_bytes` bytes, or b"" when the other side has finished.

        Raises `Unreachable` when the stream is broken.
        """

    async def receive_into(self, target: memoryview) -> int:
        """As `receive_some`, into the front of `target` (bytes, writable, not empty).

        Returns how many; 0 when the other side has finished.
        """

    def unsent(self) -> int:
        """Bytes given to `send_all` that the other side has not acknowledged yet, as far as this
        machine can tell; 0 where it cannot.
        """

    async def send_eof(self) -> None:
        """No more will be sent; the other side's `receive_some` returns b"" after what was sent.

        Bulk streams may close both ways.
        """

    async def aclose(self) -> None:
        """Give the stream back. Never raises; safe to call twice and under cancellation."""


StreamHandler = Callable[[ByteStream], Awaitable[None]]


class Subscription(Protocol):
    """Messages of one topic, in the order they arrived.

    A slow reader loses the oldest ones, counted in `dropped`.
    """

    dropped: int

    def __aiter__(self) -> AsyncIterator[tuple[PeerId, bytes]]: ...


class Network(Protocol):
    """Reaching other nodes. One instance is one node's place in the swarm.

    Guarantees: a stream's `peer` is authenticated; what was registered with `serve` is called once
    per incoming stream, in its own task, and an exception of kind `PeerFault` or `Unreachable` in
    it closes that stream alone. Handlers run concurrently, at most `MAX_STREAMS_PER_PEER` for one
    peer. Never raises anything but `Unreachable` (or cancellation) for what happens on the wire.
    """

    @property
    def peer(self) -> PeerId:
        """Our own id."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """The multiaddrs others can join us at, each ending in `/p2p/<peer id>`; the most useful
        first.
        """

    @property
    def endpoint(self) -> Endpoint:
        """Our own bulk endpoint."""

    async def open_stream(self, peer: PeerId, protocol: str) -> ByteStream:
        """A stream to a known peer, connecting first where needed. Raises `Unreachable`."""

    async def open_bulk(self, endpoint: Endpoint, protocol: str) -> ByteStream:
        """A bulk stream: direct TCP with mutual TLS 1.3 pinned to `endpoint.certificate`; where no
        direct path exists the same bytes over a stream of the control connection, to who holds
        the key of `endpoint.peer`.

        Raises `Unreachable`.
        """

    def serve(self, protocol: str, handler: StreamHandler) -> None:
        """Take streams of `protocol` that others open with `open_stream`.

        Before the network starts, once per protocol.
        """

    def serve_bulk(self, protocol: str, handler: StreamHandler) -> None:
        """Take bulk streams of `protocol`. Before the network starts, once per protocol."""

    def admit(self, endpoint: Endpoint) -> None:
        """From now on accept bulk streams from the peer that shows exactly this certificate
        (replaces its earlier one).
        """

    async def publish(self, topic: str, data: bytes) -> None:
        """Gossip to everybody subscribed, ourselves not included.

        At most `MAX_GOSSIP_BYTES`. May be lost; never raises for that.
        """

    def subscribe(
        self, topic: str, accept: Callable[[PeerId, bytes], bool], *, keep: bool = True
    ) -> Subscription:
        """Messages of `topic`.

        `accept` is called synchronously for each new one with its signer before it is passed on to
        others: False drops it, and counts against the peer that brought it. Without `keep` that is
        all: nothing waits to be read. Before the network starts.
        """

    async def provide(self, key: bytes) -> None:
        """Announce in the DHT that we have `key` (32 bytes); repeated by the network itself until
        it stops.
        """

    async def find_providers(self, key: bytes) -> list[PeerId]:
        """Who announced `key`, as the swarm (not only our own store) knows it; their addresses are
        then known to the network.
        """

    def links(self) -> Sequence[Link]:
        """Every live connection."""

    def keep(self, peers: frozenset[PeerId]) -> None:
        """From now on these peers (and no others) come before strangers wherever something is
        scarce: places, streams, gossip.
        """

    def source_of(self, peer: PeerId) -> Source:
        """From where a connected peer comes, and whether it goes before strangers (`keep`)."""

    def changes(self) -> AsyncIterator[LinkChange]:
        """Connections as they come and go, beginning with those that are up."""

    def traffic(self) -> Traffic: ...

    def refusals(self) -> Mapping[str, int]:
        """What was refused on open ports before it reached a handler, by reason (words of
        `protocol.journal.REFUSALS`).
        """


# libp2p gossip's own default limit on one message.
MAX_GOSSIP_BYTES = 1 << 20
# A node keeps one control stream, a few fetches and one bulk stream per slice open to a peer.
MAX_STREAMS_PER_PEER = 32


# ------------------------------------------------------------------------------------------------ trainer


class ParameterSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor of the model in flat order.

    `init` is "zeros", "ones" or "uniform"; `bound` is half the width of "uniform".
    """

    name: str
    shape: tuple[int, ...]
    init: str
    bound: float = 0.0


class TaskInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the trainer says of its task once it is up.

    The flat vector is the specs' tensors in order, C order.
    """

    parameters: int
    specs: tuple[ParameterSpec, ...]
    dataset_size: int
    # As a person would say it: "cpu (2 threads)", "NVIDIA GeForce RTX 3060, 12 GB".
    device: str
    threads: int
    task: TaskDigest = TaskDigest()  # what members of a run must have alike


class Lane(msgspec.Struct, frozen=True, kw_only=True):
    """Which samples a node draws in a round: positions `base + index + k * stride`, k = 0, 1, ...
    of the run's keyed permutation.
    """

    base: int
    index: int
    stride: int

    def after(self, samples: int) -> Lane:
        """The rest of this lane, behind its first `samples`."""
        return Lane(base=self.base + samples * self.stride, index=self.index, stride=self.stride)


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What was learned since the last `train` or `collect`: start parameters minus parameters now.

    `delta` is a view into shared memory: copy or use it before the next call to the trainer.
    `samples` 0 means nothing was done (`delta` is then all zeros). `loss` is the mean training loss
    over those samples, None for none.
    """

    delta: Vector
    samples: int
    steps: int
    loss: float | None
    seconds: float


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How the current stretch of training goes, from the trainer's last report."""

    steps: int
    samples: int
    loss: float | None
    samples_per_second: float


class Trainer(Protocol):
    """The thing that learns. It owns the device.

    Guarantees: between `train` and `collect` it trains without being asked; `collect` ends at a
    step's border, hands over everything since the last `train`/`collect`, and leaves the trainer
    paused; deltas of successive `collect`s add up to the whole displacement. Raises `TrainerLost`
    when the trainer died; it is then being restarted, and everything not yet collected is gone. A
    command that does not fit the trainer's state (`inner_state` while it trains, `resume` before
    any anchor) raises the same and changes nothing.
    """

    async def describe(self) -> TaskInfo:
        """Waits until the trainer is up."""

    async def train(self, anchor: Vector, lane: Lane, *, max_steps: int | None = None) -> None:
        """Take these parameters and train from them. The inner optimizer's state is kept."""

    async def resume(self, lane: Lane, *, max_steps: int | None = None) -> None:
        """Train on from where the last `collect` paused, without taking an anchor."""

    async def collect(self) -> Work:
        """Stop at the next step's border, hand over, stay paused."""

    async def inner_state(self) -> Vector:
        """The inner optimizer's state as one flat vector (a copy), for a checkpoint.

        The trainer must be paused.
        """

    async def restore_inner_state(self, state: Vector) -> None:
        """Put back what `inner_state` gave, after a restart.

        Raises `ValueError` when it does not fit.
        """

    def progress(self) -> Progress: ...

    @property
    def restarts(self) -> int:
        """How often the trainer died alone and was started again."""


class TrainerLost(Exception):
    """The trainer died, and what it had not handed over is gone; or it is not in the state that the
    command needs.

    `train` helps in both cases, once the trainer is up. The message says why, in one sentence.
    """


# ------------------------------------------------------------------------------------------------ disk


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a node needs to go on after a restart, at one certificate (or at genesis: `tip` is
    the run id, `number` 0).
    """

    run: Digest
    tip: Digest
    number: int
    # Vector; msgspec cannot describe arrays, this record never crosses a wire.
    anchor: Any
    momentum: Any  # Vector
    # Vector; empty when the trainer had none to give.
    inner: Any
    # Name and shape of each tensor in the anchor, in order; empty where not known.
    shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    # The tip with all its figures (`encode_tip`): the certificates on disk may not reach back to
    # genesis. Empty where not known.
    stood: bytes = b""


class SentOffer(msgspec.Struct, frozen=True, kw_only=True):
    """An offer of an earlier parent that was given out, and that a certificate on its way may list."""

    seq: int
    weight: int
    digest: Digest
    encoded: Buffer
    # The share of its work that the residue still holds.
    factor: float
    left: int  # samples of it that still wait


def _empty() -> Any:
    return np.zeros(0, np.float32)


class LedgerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The contributor's ledger as it stands on disk (see `protocol/contribution/ledger.py`)."""

    run: Digest
    tip: Digest
    next_seq: int
    weight: int
    carried: int
    offered_seq: int  # 0 when nothing is offered
    offered_weight: int
    offered_digest: Digest
    # The encoded contribution, exactly the bytes a retry sends.
    offered: Buffer
    residue: Any  # Vector S
    samples: int = 0  # of the trajectory from `tip`
    # Vector T; empty where `samples` is 0.
    displacement: Any = msgspec.field(default_factory=_empty)
    later_samples: int = 0  # trained after the offer was given out
    later: Any = msgspec.field(default_factory=_empty)  # their Vector; empty where there are none
    # Samples of the round's lane that were used.
    drawn: int = 0
    rounds: int = 0  # of training in the trajectory
    later_rounds: int = 0  # and in `later`
    # Offers of earlier parents that are not settled, by seq.
    sent: tuple[SentOffer, ...] = ()


class ViewRecord(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A round, by its parent, and the first view of it in which this node has not scattered, voted
    or planned yet.
    """

    parent: Digest
    view: int


STANDS_KEPT = 16
"""Rounds of which a node remembers where it stood: certificates may be ahead of the checkpoint it comes back from by as many."""


PROOFS_KEPT = 64
PROOFS_BYTES = 32 << 20
"""Proofs that somebody lied, of one run, and their bytes. One holds a chunk of every contributor: 150 KB among eight members, 1.2 MB among 64.
Where there are more, the oldest go: keys are free, and a liar of long ago has likely come back under another one."""


class KeptState(Protocol):
    """The state of one kept checkpoint, open for reading.

    It stays readable when the disk removes the checkpoint, until it is closed.
    """

    async def read(self, offset: int, size: int) -> bytes | None:
        """As `Disk.read_state`. None when the medium fails."""

    async def aclose(self) -> None: ...


class Disk(Protocol):
    """What survives.

    Every write is atomic: after a crash at any instant the old or the new record is there, whole.

    Raises `DiskFull` when the medium refuses; what was there before is then still there. What is
    found damaged and can be done without reads as if it were not there, and the disk itself tells
    its owner, once. What cannot be done without (the certificates, every checkpoint) raises
    `UserError("DAMAGED")`: a node does not begin anew over what it certified.
    """

    async def save_checkpoint(
        self, checkpoint: Checkpoint, superseded: Collection[Digest] = ()
    ) -> None:
        """Durable on return.

        `superseded` are the tips in the ancestry of this one: of their checkpoints the last few
        stay.

        Every other checkpoint stays as it is: nothing is removed whose certificate is not known.
        """

    async def leave_checkpoints(self, run: Digest, tips: Collection[Digest]) -> None:
        """A branch is left on purpose: from now on `load_checkpoint` does not give its checkpoints.

        A real disk sets the last few apart.
        """

    async def checkpoints(self, run: Digest) -> list[tuple[int, Digest]]:
        """Number and tip of each checkpoint that `load_checkpoint` may give, whole or not, the
        oldest first.
        """

    async def load_checkpoint(self, run: Digest) -> Checkpoint | None:
        """The newest whole one of this run; damaged ones are passed over, unless there is no other.

        None where there is no file at all.
        """

    def damage(self, run: Digest, what: str, why: str = "") -> UserError:
        """The error for what was read of a run and cannot be used.

        It names the place and a command that works.
        """

    async def save_ledger(self, record: LedgerRecord) -> None:
        """Durable on return; there is one per run."""

    async def load_ledger(self, run: Digest) -> LedgerRecord | None: ...

    async def save_stands(self, run: Digest, stands: Sequence[ViewRecord]) -> None:
        """Durable on return; replaces those saved before.

        At most `STANDS_KEPT`: it is called in every round, and must be quick.
        """

    async def load_stands(self, run: Digest) -> list[ViewRecord]:
        """Those saved last, in their order; none when there are none, or when they are damaged."""

    async def append_certificate(self, run: Digest, number: int, certificate: bytes) -> None:
        """Adds to the run's chain of certificates.

        Appending a lower or equal number cuts the chain back to it first.
        """

    async def certificates(self, run: Digest, first: int, limit: int) -> list[bytes]:
        """Up to `limit` certificates in order, from number `first` on.

        An append that was broken off reads as if it had not been written.
        """

    async def save_proof(self, run: Digest, proof: bytes) -> None:
        """Durable on return, under its digest; one that is there stays.

        Keeps `PROOFS_KEPT` of at most `PROOFS_BYTES` and removes the oldest.
        """

    async def proofs(self, run: Digest) -> list[Digest]:
        """What is kept, in the order in which it was saved."""

    async def load_proof(self, run: Digest, name: Digest) -> bytes | None:
        """Exactly the bytes with that digest.

        None when they are not there, or damaged: then they are set aside and not among `proofs` any
        more.
        """

    async def open_state(self, tip: Digest) -> KeptState | None:
        """The state of a kept checkpoint; None when it is not kept."""

    async def read_state(self, tip: Digest, offset: int, size: int) -> bytes | None:
        """`size` bytes (fewer at the end) of anchor then momentum, little-endian float32, of a kept
        checkpoint; None when it is not kept.
        """


class DiskFull(Exception):
    """The disk did not take a record.

    The message names the path, what was needed and what is free.
    """


# ------------------------------------------------------------------------------------------------ offloading


class Offload(Protocol):
    """Runs blocking or numeric work: in a thread in a real node, inline in a simulated one (its
    clock cannot see threads).
    """

    async def __call__(self, work: Callable[[], T], /) -> T: ...


async def inline(work: Callable[[], T], /) -> T:
    """The simulator's `Offload`."""
    return work()


def chunks_of(data: memoryview, size: int) -> Iterator[memoryview]:
    """`data` in pieces of `size` bytes, the last one possibly shorter."""
    for start in range(0, len(data), size):
        yield data[start : start + size]
