"""A run's session on the chain: its state beside this home's, one step of its owner, and refusals.

The contract alone decides whether a step is allowed. A refusal is explained from what the chain
says afterwards, so that the explanation cannot differ from the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from daemon.chain.client_setup import CHAIN_EXIT_CODE
from daemon.chain.rewards import WAIT_S
from protocol.certificates.certificate import OpenCertificate
from protocol.chain.errors import ChainError, ChainPending, ChainRefused
from protocol.chain.keccak import ZERO_ADDRESS, Address
from protocol.chain.port import NO_HASH, Chain, RunStatus, SentTransaction, SettledTransaction
from protocol.digest import SHOWN_DIGITS
from protocol.errors import UserError
from protocol.run.manifest import SignedManifest
from protocol.status.figures import count

# String[96] in sessions.vy. A longer sentence would be cut.
MAX_REASON_BYTES = 96


class RunSession(msgspec.Struct, frozen=True, kw_only=True):
    """A run's session beside what this home has of the run.

    Hashes have 64 digits. A missing hash or owner is "". `is_own` says whether this home's wallet
    owns the session. `certificate_round` is None if the final certificate is missing, on the chain
    or in this home. `last_certificate` and `last_round` are this home's.
    """

    run: str
    name: str
    state: str
    owner: str
    is_own: bool
    manifest: str
    own_manifest: str
    same_manifest: bool
    certificate: str
    certificate_round: int | None
    last_certificate: str
    last_round: int | None


def session_of(
    status: RunStatus,
    signed: SignedManifest,
    account: Address | None,
    held: Sequence[OpenCertificate],
) -> RunSession:
    """Put a session beside this home's state.

    `account` is this home's wallet, and None without one. `held` is its certificates, oldest first.
    """
    final = next((one for one in held if one.hash == status.certificate), None)
    return RunSession(
        run=signed.run.hex(),
        name=signed.open().name,
        state=status.state,
        owner="" if status.owner == ZERO_ADDRESS else status.owner,
        is_own=status.owner == account,
        manifest=_digits(status.manifest),
        own_manifest=signed.published.hex(),
        same_manifest=status.manifest == signed.published,
        certificate=_digits(status.certificate),
        certificate_round=final.outcome.number if final else None,
        last_certificate=held[-1].hash.hex() if held else "",
        last_round=held[-1].outcome.number if held else None,
    )


def final_certificate(
    held: Sequence[OpenCertificate], named: str | None, damage: Sequence[str]
) -> OpenCertificate:
    """Return the certificate that completes a run: this home's last, or the one that is `named`.

    `named` is the beginning of its hash. `damage` is what was damaged on disk. Raises `UserError`.
    """
    if named is None:
        if damage:
            raise UserError(
                "CERTIFICATES",
                "Cannot determine the final certificate.",
                why=damage[0],
                fix="hypergpud start, to fetch what is missing, or "
                "hypergpud session complete --certificate HASH",
            )
        if not held:
            raise UserError(
                "NO_CERTIFICATES",
                "No round of this run is certified in this home.",
                why="the final certificate completes a run",
                fix="complete the run from a home that took part, or end it without a certificate: "
                "hypergpud session cancel --reason TEXT",
            )
        return held[-1]
    digits = named.lower().removeprefix("0x")
    meant = [one for one in held if digits and one.hash.hex().startswith(digits)]
    if len(meant) == 1:
        return meant[0]
    last = (
        f"; the last one, of round {count(held[-1].outcome.number)}, "
        f"is {held[-1].hash.hex()[:SHOWN_DIGITS]}"
        if held
        else ""
    )
    raise UserError(
        "CERTIFICATE",
        f"{'Several certificates have' if meant else 'No certificate has'} "
        f"a hash that begins with {named!r}.",
        why=f"this home holds {count(len(held))} certificates of this run{last}",
        fix="name more of the hash" if meant else "leave out --certificate to use the last one",
        exit_code=2,
    )


def checked_reason(text: str) -> str:
    """Check the reason of a cancellation. Raises `UserError("REASON")`."""
    reason = " ".join(text.split())
    size = len(reason.encode())
    if 0 < size <= MAX_REASON_BYTES:
        return reason
    raise UserError(
        "REASON",
        "The reason must be one short sentence.",
        why=f"the chain keeps 1 to {MAX_REASON_BYTES} bytes for ever, and this has {size}",
        fix="hypergpud session cancel --reason TEXT",
        exit_code=2,
    )


def send_step(chain: Chain, run: bytes, send: Callable[[], SentTransaction]) -> SettledTransaction:
    """Send one step and wait until it is settled.

    Raises `ChainError`, or a `UserError` that explains a refusal.
    """
    try:
        settled = chain.wait(send(), WAIT_S)
    except ChainRefused as error:
        raise explained(error.reason, chain.run(run, chain.account)) from None
    except ChainPending as error:
        raise UserError(
            "CHAIN_PENDING",
            "The transaction is sent, and not settled yet.",
            why=str(error),
            fix="hypergpud session show, in a while; repeating the command sends nothing twice",
            exit_code=CHAIN_EXIT_CODE,
        ) from None
    if not settled.done:
        raise explained(
            settled.reason or "the transaction was not included", chain.run(run, chain.account)
        )
    return settled


def explained(reason: str, now: RunStatus) -> UserError | ChainError:
    """Explain a refusal of the sessions' contract; other refusals stay as they are."""
    if reason not in REFUSALS:
        return ChainRefused(reason)
    what, why, fix = REFUSALS[reason](now)
    return UserError("SESSION", what, why=why, fix=fix)


Explanation = tuple[str, str, str]
"""What happened, why, and what to type."""


def _no_such_run(now: RunStatus) -> Explanation:
    return (
        "This home's wallet has no session for this run.",
        "only the account that created a session changes it",
        "hypergpud session create, or use the owner's home: hypergpud --home PATH session ...",
    )


def _already_created(now: RunStatus) -> Explanation:
    return (
        "This run's session exists already.",
        f"this home's wallet owns the session, which is {now.state}",
        _next(now),
    )


def _not_created(now: RunStatus) -> Explanation:
    """Explain why a session cannot be activated: its state is past `created`."""
    if now.state == "active":
        return "This run is active already.", "a session is activated once", _next(now)
    return _ended(now)


def _not_active(now: RunStatus) -> Explanation:
    """Explain why a session cannot be completed."""
    if now.state == "created":
        return (
            "This run is not active yet.",
            "only an active run can be completed",
            _next(now),
        )
    return _ended(now)


def _ended(now: RunStatus) -> Explanation:
    ended = (
        f", with certificate {now.certificate.hex()[:SHOWN_DIGITS]}"
        if now.certificate != NO_HASH
        else ""
    )
    return (
        f"This run is {now.state} already.",
        f"it ended{ended}, which is final",
        _next(now),
    )


def _no_certificate(now: RunStatus) -> Explanation:
    return (
        "A run cannot be completed without a certificate.",
        "the certificate's hash is zero",
        "hypergpud session cancel --reason TEXT",
    )


def _no_run(now: RunStatus) -> Explanation:
    return "This run's id is not valid.", "the id is zero", "name another run"


REFUSALS: dict[str, Callable[[RunStatus], Explanation]] = {
    "sessions: no run": _no_run,
    "sessions: no such run": _no_such_run,
    "sessions: already created": _already_created,
    "sessions: not created": _not_created,
    "sessions: not active": _not_active,
    "sessions: no certificate": _no_certificate,
    "sessions: already ended": _ended,
}


def _next(now: RunStatus) -> str:
    """Return what the owner may do next."""
    return {
        "created": "hypergpud session activate",
        "active": "hypergpud session complete, when it is over",
    }.get(now.state, "for another session, make another run: a manifest that differs")


def _digits(value: bytes) -> str:
    return "" if value == NO_HASH else value.hex()
