"""One world, one look at each message: whether a key signed some bytes, and what they say, does not
depend on who asks.

A certificate's thirty signatures are checked by every node of a swarm. In a world all of them are
in one process, and two thirds of its time would go there. What was never checked is checked for
real, so a forged signature fails for whoever sees it first and for everybody after. A signature
that a key of this world was seen making is valid by construction, and only that one: for the same
signer and bytes. It is the signature that the node's own signer makes, to the byte (Ed25519 leaves
nothing to chance), by libsodium in half the time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from nacl.bindings import crypto_sign, crypto_sign_BYTES

from daemon.swarm import follower, lineage, messenger
from protocol.certificates import decoded_plans
from protocol.certificates.certificate import OpenCertificate, open_certificate
from protocol.certificates.decoded_plans import DecodedPlans
from protocol.digest import Digest
from protocol.identity import PeerId, Signer, verify
from protocol.messages import envelope
from protocol.messages.base import Signed
from protocol.messages.envelope import AnyMessage, decode_signed, open_signed
from protocol.planning.plan import OpenPlan, open_plan, read_plan
from protocol.run import manifest
from protocol.run.manifest import Manifest

CHECKS_KEPT = 1 << 15  # several rounds of a thousand nodes
# Plans and certificates: what nodes of one world are apart at most, but for a joiner that reads all
# from the start.
ROUNDS_KEPT = 64


@contextmanager
def checked_once() -> Iterator[None]:
    """Inside, what was found out about signatures, messages, plans and certificates is remembered.

    For worlds of one run, whose manifest follows from its id. Failures are found out anew each
    time; a signature that did not fit is remembered not to.
    """
    memory = _Memory()
    replaced: tuple[tuple[Any, str, Any], ...] = (
        (Signer, "sign", memory.sign()),
        (envelope, "verify", memory.verify),
        (manifest, "verify", memory.verify),
        (envelope, "open_signed", memory.open_signed),
        (messenger, "open_signed", memory.open_signed),
        (follower, "decode_signed", memory.decode_signed),
        (decoded_plans, "open_plan", memory.open_plan),
        (decoded_plans, "read_plan", memory.read_plan),
        (lineage, "open_certificate", memory.open_certificate),
    )
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in replaced]
    for owner, name, remembering in replaced:
        setattr(owner, name, remembering)
    try:
        yield
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)


class _Memory:
    """What one world found out.

    Methods that stand for a function of the protocol take what it takes and give what it gives.
    """

    def __init__(self) -> None:
        # Signature to who made it for which bytes.
        self._made: dict[bytes, tuple[PeerId, bytes]] = {}
        self._verified = lru_cache(maxsize=CHECKS_KEPT)(verify)
        self._messages = lru_cache(maxsize=CHECKS_KEPT)(open_signed)
        # Gossip as it was last decoded: the same bytes go to everybody.
        self._told: tuple[bytes, Signed] | None = None
        self._opened: tuple[Signed, Digest, AnyMessage] | None = None

        @lru_cache(maxsize=ROUNDS_KEPT)
        def plan_of(signed: Signed, run: Digest, chunks: int | None, given: _Unhashed) -> OpenPlan:
            return open_plan(signed, run, given.manifest, chunks)

        @lru_cache(maxsize=ROUNDS_KEPT)
        def read_plan_of(
            signed: Signed, run: Digest, chunks: int | None, given: _Unhashed
        ) -> OpenPlan:
            return read_plan(signed, run, given.manifest, chunks)

        @lru_cache(maxsize=ROUNDS_KEPT)
        def certificate_of(
            raw: bytes, run: Digest, chunks: int | None, given: _Unhashed
        ) -> OpenCertificate:
            return open_certificate(raw, run, given.manifest, chunks)

        self._plans, self._read_plans, self._certificates = plan_of, read_plan_of, certificate_of

    def sign(self) -> Any:
        """In the place of `Signer.sign`."""
        made = self._made
        keys: dict[PeerId, bytes] = {}

        def sign(signer: Signer, message: bytes) -> bytes:
            key = keys.get(signer.peer)
            if key is None:
                key = keys[signer.peer] = signer._key.private_bytes_raw() + signer.public_key
            signature = crypto_sign(message, key)[:crypto_sign_BYTES]
            made[signature] = (signer.peer, message)
            if len(made) > CHECKS_KEPT:
                del made[next(iter(made))]
            return signature

        return sign

    def verify(self, peer: PeerId, signature: bytes, message: bytes) -> bool:
        return self._made.get(signature) == (peer, message) or self._verified(
            peer, signature, message
        )

    def open_signed(self, signed: Signed, run: Digest, *, trusted: bool = False) -> AnyMessage:
        if trusted:
            return open_signed(signed, run, trusted=True)
        if self._opened is None or self._opened[0] is not signed or self._opened[1] != run:
            self._opened = (signed, run, self._messages(signed, run))
        return self._opened[2]

    def decode_signed(self, data: bytes) -> Signed:
        if self._told is None or self._told[0] is not data:
            self._told = (data, decode_signed(data))
        return self._told[1]

    def open_plan(
        self, signed: Signed, run: Digest, rules: Manifest, chunks: int | None
    ) -> OpenPlan:
        return self._plans(signed, run, chunks, _Unhashed(rules))

    def read_plan(
        self,
        signed: Signed,
        run: Digest,
        rules: Manifest,
        chunks: int | None,
        *,
        trusted: bool = False,
    ) -> OpenPlan:
        if trusted:
            return read_plan(signed, run, rules, chunks, trusted=True)
        return self._read_plans(signed, run, chunks, _Unhashed(rules))

    def open_certificate(
        self,
        raw: bytes,
        run: Digest,
        rules: Manifest,
        chunks: int | None,
        *,
        trusted: bool = False,
        plans: DecodedPlans | None = None,
    ) -> OpenCertificate:
        if trusted:
            return open_certificate(raw, run, rules, chunks, trusted=True)
        return self._certificates(raw, run, chunks, _Unhashed(rules))


class _Unhashed:
    """The run's manifest as an argument that a cache does not look at: which one it is follows from
    the run.
    """

    def __init__(self, rules: Manifest) -> None:
        self.manifest = rules

    def __hash__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Unhashed)
