"""A cache of signatures and decoded messages that all nodes of one world share.

Whether a key signed some bytes does not depend on who asks. Every node of a swarm checks the thirty
signatures of a certificate. In a world all nodes are in one process, and two thirds of its time
would go there.

What was never checked is checked for real, so a forged signature fails for the first node that sees
it and for all others. A signature that a key of this world made is valid by construction, for the
same signer and bytes only. libsodium makes the same bytes as the node's own signer in half the
time, since Ed25519 is deterministic.
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
from protocol.membership.record import MembershipRecord
from protocol.messages import envelope
from protocol.messages.base import Signed
from protocol.messages.envelope import AnyMessage, decode_signed, open_signed
from protocol.planning.plan import OpenPlan, open_plan, read_plan
from protocol.run import manifest
from protocol.run.manifest import Manifest

# Several rounds of a thousand nodes.
CHECKS_KEPT = 1 << 15
# Plans and certificates. Nodes of one world are at most this many rounds apart, except a newcomer
# that reads everything from the start.
ROUNDS_KEPT = 64


@contextmanager
def checked_once() -> Iterator[None]:
    """Check each signature, message, plan and certificate once for all nodes of the block.

    It is for worlds of one run, whose manifest follows from its id. A failure to decode is found
    anew each time. A signature that did not verify is cached as invalid.
    """
    cache = _Cache()
    replaced: tuple[tuple[Any, str, Any], ...] = (
        (Signer, "sign", cache.sign()),
        (envelope, "verify", cache.verify),
        (manifest, "verify", cache.verify),
        (envelope, "open_signed", cache.open_signed),
        (messenger, "open_signed", cache.open_signed),
        (follower, "decode_signed", cache.decode_signed),
        (decoded_plans, "open_plan", cache.open_plan),
        (decoded_plans, "read_plan", cache.read_plan),
        (lineage, "open_certificate", cache.open_certificate),
    )
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in replaced]
    for owner, name, cached in replaced:
        setattr(owner, name, cached)
    try:
        yield
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)


class _Cache:
    """The results of one world.

    A method that replaces a function of the protocol has the same arguments and the same result.
    """

    def __init__(self) -> None:
        # From a signature to its signer and the signed bytes.
        self._made: dict[bytes, tuple[PeerId, bytes]] = {}
        self._verified = lru_cache(maxsize=CHECKS_KEPT)(verify)
        self._messages = lru_cache(maxsize=CHECKS_KEPT)(open_signed)
        # The last gossip message that was decoded: the same bytes go to everybody.
        self._last_gossip: tuple[bytes, Signed] | None = None
        self._opened: tuple[Signed, Digest, AnyMessage] | None = None

        @lru_cache(maxsize=ROUNDS_KEPT)
        def plan_of(
            signed: Signed, run: Digest, chunks: int | None, given: _Unhashed, parent: _ByDigest
        ) -> OpenPlan:
            return open_plan(signed, run, given.manifest, chunks, parent.record)

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
        """The replacement of `Signer.sign`."""
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
        if self._last_gossip is None or self._last_gossip[0] is not data:
            self._last_gossip = (data, decode_signed(data))
        return self._last_gossip[1]

    def open_plan(
        self,
        signed: Signed,
        run: Digest,
        rules: Manifest,
        chunks: int | None,
        record: MembershipRecord | None = None,
    ) -> OpenPlan:
        return self._plans(signed, run, chunks, _Unhashed(rules), _ByDigest(record))

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
    """The run's manifest as an argument that a cache ignores, because the run determines it."""

    def __init__(self, rules: Manifest) -> None:
        self.manifest = rules

    def __hash__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Unhashed)


class _ByDigest:
    """A membership record as an argument of a cache: its digest names it."""

    def __init__(self, record: MembershipRecord | None) -> None:
        self.record = record
        self._name = record.digest if record is not None else b""

    def __hash__(self) -> int:
        return hash(self._name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByDigest) and self._name == other._name
