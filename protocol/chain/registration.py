"""The registration of a peer, as another node sees it.

A node challenges a peer with an expiry. The wallet that the peer works for answers, and the chain
says whether it knows that wallet.

    pending     seen, and not challenged yet
    challenged  challenged with a number that is used once
    verified    its wallet answered in time
    approved    and the chain has that wallet registered
    rejected    its answer was wrong
    expired     it did not answer in time; it is challenged again later
    suspended   registered, but the chain has not heard from it lately

A binding proves that a wallet once signed for a peer. An answer proves that the peer has the wallet
now. The answer is EIP-712 typed data for the run's chain and contract, so it is valid for nothing
else.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec

from protocol.chain.account_binding import check_signature, domain_of, struct_hash
from protocol.chain.keccak import keccak256
from protocol.errors import PeerFault
from protocol.identity import PeerId, short

CHALLENGE_TYPE = b"Challenge(string peer,bytes32 nonce,uint256 expires)"
VALID_S = 60.0
"""Seconds for an answer: two round trips and a wallet on a busy machine."""

AGAIN_S = 600.0
"""Seconds before a peer that did not answer, or answered wrong, is challenged again."""

NONCE_BYTES = 32


class RegistrationState(enum.Enum):
    """The states of a registration."""

    PENDING = "pending"
    CHALLENGED = "challenged"
    VERIFIED = "verified"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    SUSPENDED = "suspended"


class RegistrationEvent(enum.Enum):
    """What can happen to a registration."""

    ASKED = "asked"
    ANSWERED = "answered"
    WRONG = "wrong"
    SILENT = "silent"
    ON_CHAIN = "on chain"
    OFF_CHAIN = "off chain"
    INACTIVE = "inactive"


S, H = RegistrationState, RegistrationEvent
_ASKED_FROM = (S.PENDING, S.EXPIRED, S.REJECTED)

TABLE: Mapping[tuple[RegistrationState, RegistrationEvent], RegistrationState] = {
    **{(state, H.ASKED): S.CHALLENGED for state in _ASKED_FROM},
    (S.CHALLENGED, H.ANSWERED): S.VERIFIED,
    (S.CHALLENGED, H.WRONG): S.REJECTED,
    (S.CHALLENGED, H.SILENT): S.EXPIRED,
    **{(state, H.ON_CHAIN): S.APPROVED for state in (S.VERIFIED, S.SUSPENDED, S.APPROVED)},
    **{(state, H.INACTIVE): S.SUSPENDED for state in (S.VERIFIED, S.APPROVED, S.SUSPENDED)},
    **{(state, H.OFF_CHAIN): S.VERIFIED for state in (S.VERIFIED, S.APPROVED, S.SUSPENDED)},
}
"""The transitions. Anything else changes nothing."""


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """The registration of one peer.

    `expires_s` is the expiry of the open challenge, in unix seconds. `wallet` has the 20 bytes that
    answered.
    """

    peer: PeerId
    state: RegistrationState = RegistrationState.PENDING
    nonce: bytes = b""
    expires_s: int = 0
    wallet: bytes = b""
    reason: str = ""
    since_s: float = 0.0

    @property
    def barred(self) -> bool:
        """Whether a run that admits registered nodes only leaves the peer out.

        A peer on its way to registration is admitted. So is a suspended one: heartbeats follow
        certificates, and a peer outside all plans gets none, so that all could wait for each other
        for ever.
        """
        return self.state is RegistrationState.REJECTED

    def due(self, now_s: float) -> bool:
        """Return whether the peer should be challenged now."""
        waiting = self.state in {RegistrationState.EXPIRED, RegistrationState.REJECTED}
        return self.state is RegistrationState.PENDING or (
            waiting and now_s >= self.since_s + AGAIN_S
        )


def moved(
    known: Registration,
    event: RegistrationEvent,
    now_s: float,
    reason: str = "",
    **changes: object,
) -> Registration:
    """Return the registration after an event. Pure."""
    state = TABLE.get((known.state, event))
    if state is None:
        return known
    return msgspec.structs.replace(
        known,
        state=state,
        reason=reason,
        since_s=now_s if state is not known.state else known.since_s,
        **changes,
    )


def challenge_digest(
    peer: PeerId, nonce: bytes, expires_s: int, chain_id: int, contract: bytes
) -> bytes:
    """Return the 32 bytes that the wallet of `peer` signs."""
    body = struct_hash(
        CHALLENGE_TYPE, keccak256(peer.encode()), nonce, expires_s.to_bytes(32, "big")
    )
    return keccak256(b"\x19\x01" + domain_of(chain_id, contract) + body)


def judge_answer(
    known: Registration,
    public_key: bytes,
    signature: bytes,
    now_s: float,
    chain_id: int,
    contract: bytes,
) -> Registration:
    """Return the registration after an answer to the open challenge.

    Args:
        public_key: the compressed key.
        signature: r ‖ s.
    """
    if now_s > known.expires_s:
        return moved(
            known,
            RegistrationEvent.SILENT,
            now_s,
            "its answer came after the challenge had expired",
        )
    signed = challenge_digest(known.peer, known.nonce, known.expires_s, chain_id, contract)
    try:
        wallet = check_signature(
            public_key, signature, signed, f"the answer of {short(known.peer)}"
        )
    except PeerFault as fault:
        return moved(known, RegistrationEvent.WRONG, now_s, str(fault))
    return moved(known, RegistrationEvent.ANSWERED, now_s, wallet=wallet)
