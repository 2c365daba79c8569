"""A run's session on the chain: what it says beside what this home knows, one step of its owner,
and what a refusal means.

The contract alone judges a step: what it refuses is explained from what the chain then says, so
that words and rules cannot part.
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

# String[96] in sessions.vy; a longer sentence would be cut in the middle.
MOST_REASON_BYTES = 96


class RunSession(msgspec.Struct, frozen=True, kw_only=True):
    """A run on the chain beside what this home holds of it.

    Hashes have 64 digits; what there is not, hash or owner, is empty.
    """

    run: str
    name: str
    state: str
    owner: str
    is_own: bool  # the owner is this home's wallet
    manifest: str
    own_manifest: str
    same_manifest: bool
    certificate: str
    # None: there is none, or it is not among this home's certificates.
    certificate_round: int | None
    last_certificate: str  # of this home
    last_round: int | None


def session_of(
    status: RunStatus,
    signed: SignedManifest,
    account: Address | None,
    held: Sequence[OpenCertificate],
) -> RunSession:
    """`account` is this home's wallet, None where it has none; `held` are its certificates, oldest
    first.
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
    """The certificate that a run is completed with: the last one of this home, or the one whose
    hash begins with `named`.

    `damage` is what was found damaged while they were read. Raises `UserError`.
    """
    if named is None:
        if damage:
            raise UserError(
                "CERTIFICATES",
                "Which certificate is the last one cannot be told.",
                why=damage[0],
                fix="hypergpud start fetches what is missing; or name the certificate: hypergpud session complete --certificate HASH",
            )
        if not held:
            raise UserError(
                "NO_CERTIFICATES",
                "No round of this run is certified in this home.",
                why="a run is completed with its final certificate",
                fix="complete it from a home that took part, or end it without one: hypergpud session cancel --reason TEXT",
            )
        return held[-1]
    digits = named.lower().removeprefix("0x")
    meant = [one for one in held if digits and one.hash.hex().startswith(digits)]
    if len(meant) == 1:
        return meant[0]
    last = (
        f"; the last one, of round {count(held[-1].outcome.number)}, is {held[-1].hash.hex()[:SHOWN_DIGITS]}"
        if held
        else ""
    )
    raise UserError(
        "CERTIFICATE",
        f"{'Several certificates' if meant else 'No certificate'} of this home's chain {'have' if meant else 'has'} "
        f"a hash that begins with {named!r}.",
        why=f"it holds {count(len(held))} of this run{last}",
        fix="name more of the hash" if meant else "leave --certificate away to take the last one",
        exit_code=2,
    )


def checked_reason(text: str) -> str:
    """Why a run is cancelled, as the chain keeps it for ever. Raises `UserError("REASON")`."""
    reason = " ".join(text.split())
    size = len(reason.encode())
    if 0 < size <= MOST_REASON_BYTES:
        return reason
    raise UserError(
        "REASON",
        "A run is cancelled with one short sentence.",
        why=f"the chain keeps 1 to {MOST_REASON_BYTES} bytes, and this has {size}",
        fix="hypergpud session cancel --reason TEXT",
        exit_code=2,
    )


def send_step(chain: Chain, run: bytes, send: Callable[[], SentTransaction]) -> SettledTransaction:
    """Send one step and see it through.

    Raises `UserError` that says what a refusal means, `ChainError`.
    """
    try:
        settled = chain.wait(send(), WAIT_S)
    except ChainRefused as error:
        raise explained(error.reason, chain.run(run, chain.account)) from None
    except ChainPending as error:
        raise UserError(
            "CHAIN_PENDING",
            "It was sent, and the chain has not settled it yet.",
            why=str(error),
            fix="hypergpud session show, in a while; nothing is sent twice for it",
            exit_code=CHAIN_EXIT_CODE,
        ) from None
    if not settled.done:
        raise explained(settled.reason or "it was not taken", chain.run(run, chain.account))
    return settled


def explained(reason: str, now: RunStatus) -> UserError | ChainError:
    """A refusal of the sessions' contract in plain words; anybody else's as it is."""
    if reason not in REFUSALS:
        return ChainRefused(reason)
    what, why, fix = REFUSALS[reason](now)
    return UserError("SESSION", what, why=why, fix=fix)


Words = tuple[str, str, str]
"""What, why, fix."""


def _no_such_run(now: RunStatus) -> Words:
    return (
        "This home's wallet has not put this run on the chain.",
        "a session is moved by the account that created it",
        "hypergpud session create, or use the home with the owner's wallet: hypergpud --home PATH session ...",
    )


def _already_created(now: RunStatus) -> Words:
    return (
        "This run's session is created already.",
        f"this home's wallet owns it, and it is {now.state}",
        _next(now),
    )


def _not_created(now: RunStatus) -> Words:
    """Of activating: it was created, and has gone further."""
    if now.state == "active":
        return "This run is active already.", "a session is activated once", _next(now)
    return _ended(now)


def _not_active(now: RunStatus) -> Words:
    """Of completing."""
    if now.state == "created":
        return (
            "This run is not active yet.",
            "only a run that was active can be completed",
            _next(now),
        )
    return _ended(now)


def _ended(now: RunStatus) -> Words:
    with_what = (
        f", with certificate {now.certificate.hex()[:SHOWN_DIGITS]}"
        if now.certificate != NO_HASH
        else ""
    )
    return (
        f"This run is {now.state} already.",
        f"it has ended{with_what}, and nothing changes that",
        _next(now),
    )


def _no_certificate(now: RunStatus) -> Words:
    return (
        "A run is not completed without a certificate.",
        "its hash is zero",
        "hypergpud session cancel --reason TEXT",
    )


def _no_run(now: RunStatus) -> Words:
    return "The chain takes no run of this id.", "it is zero", "name another run"


REFUSALS: dict[str, Callable[[RunStatus], Words]] = {
    "sessions: no run": _no_run,
    "sessions: no such run": _no_such_run,
    "sessions: already created": _already_created,
    "sessions: not created": _not_created,
    "sessions: not active": _not_active,
    "sessions: no certificate": _no_certificate,
    "sessions: already ended": _ended,
}


def _next(now: RunStatus) -> str:
    """What the owner may do from there."""
    return {
        "created": "hypergpud session activate",
        "active": "hypergpud session complete, when it is over",
    }.get(now.state, "another session needs another run: a manifest that differs")


def _digits(value: bytes) -> str:
    return "" if value == NO_HASH else value.hex()
