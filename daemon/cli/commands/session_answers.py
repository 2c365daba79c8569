"""What the `session` commands do: show a run's session, or send one step of its owner and say what
came of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import UNSET

from daemon.chain.client_setup import check_profile
from daemon.chain.home_runs import HomeRun, certificates_on_disk, runs_of
from daemon.chain.sessions import (
    RunSession,
    checked_reason,
    final_certificate,
    send_step,
    session_of,
)
from daemon.cli.chain.access import RunAccess, reading, signing, unlocked
from daemon.cli.invocation import Invocation
from daemon.config.loader import load_config
from daemon.home.recent_state import describe_runs as named_runs
from daemon.home.recent_state import kept_manifest, last_run
from daemon.wallet import files
from protocol.chain.keccak import Address, checked_address
from protocol.chain.port import NO_HASH, Chain, Hash, RunStatus, SentTransaction
from protocol.digest import SHOWN_DIGITS
from protocol.errors import UserError
from protocol.run.manifest import SignedManifest
from protocol.status.figures import count, tokens


class SessionResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a step prints with `--json`: the session after it, and the transaction."""

    session: RunSession
    transaction: str
    fee: str  # base units


class _Meant(msgspec.Struct, frozen=True, kw_only=True):
    """The run of one command."""

    signed: SignedManifest
    given: RunAccess


def show(talk: Invocation, run_id: str | None, owner: str | None) -> None:
    """`owner` None: this home's wallet. Raises `UserError`."""
    meant = _meant(talk, run_id)
    own = _own_account(talk)
    whose = _owner(owner, own)
    with reading(talk, meant.given) as chain:
        status = chain.run(meant.signed.run, whose)
    found = _beside(talk, meant, status, own)
    talk.result(msgspec.json.encode(found).decode() if talk.as_json else _text(found, whose))


def create(talk: Invocation, run_id: str | None, password_file: Path | None) -> None:
    """Raises `UserError`."""
    meant = _meant(talk, run_id)
    _take(
        talk,
        meant,
        password_file,
        lambda chain: chain.create_run(meant.signed.run, meant.signed.published),
    )


def activate(talk: Invocation, run_id: str | None, password_file: Path | None) -> None:
    """Raises `UserError`."""
    meant = _meant(talk, run_id)
    _take(talk, meant, password_file, lambda chain: chain.activate_run(meant.signed.run))


def complete(
    talk: Invocation, run_id: str | None, password_file: Path | None, certificate: str | None
) -> None:
    """Raises `UserError`."""
    meant = _meant(talk, run_id)
    damage: list[str] = []
    held = certificates_on_disk(talk.home, meant.given.run, damage.append)
    final = final_certificate(held, certificate, damage)
    _take(
        talk,
        meant,
        password_file,
        lambda chain: chain.complete_run(meant.signed.run, final.hash),
        final.hash,
    )


def cancel(talk: Invocation, run_id: str | None, password_file: Path | None, reason: str) -> None:
    """Raises `UserError`."""
    words = checked_reason(reason)
    meant = _meant(talk, run_id)
    _take(talk, meant, password_file, lambda chain: chain.cancel_run(meant.signed.run, words))


def _take(
    talk: Invocation,
    meant: _Meant,
    password_file: Path | None,
    send: Callable[[Chain], SentTransaction],
    certificate: Hash = NO_HASH,
) -> None:
    """Send, wait, print what the chain says afterwards, with this `certificate` in it."""
    wallet = unlocked(talk, password_file)
    with signing(talk, meant.given, wallet) as chain:
        settled = send_step(chain, meant.signed.run, lambda: send(chain))
        status = chain.run(meant.signed.run, chain.account)
    # An earlier call was still in flight, and was seen through in place of this one.
    if status.certificate != certificate:
        raise UserError(
            "CERTIFICATE",
            f"The run is completed with {status.certificate.hex()[:SHOWN_DIGITS]}, not with {certificate.hex()[:SHOWN_DIGITS]}.",
            why="another complete of this wallet was on its way already, and a run is completed once",
        )
    found = _beside(talk, meant, status, status.owner)
    if talk.as_json:
        talk.result(
            msgspec.json.encode(
                SessionResult(session=found, transaction=settled.hash, fee=str(settled.fee))
            ).decode()
        )
    else:
        talk.result(
            f"{_text(found, status.owner)}\ntransaction  {settled.hash}, fee {tokens(settled.fee)}"
        )


def _beside(talk: Invocation, meant: _Meant, status: RunStatus, own: Address | None) -> RunSession:
    return session_of(
        status, meant.signed, own, certificates_on_disk(talk.home, meant.given.run, talk.say)
    )


def _owner(named: str | None, own: Address | None) -> Address:
    """The account whose session is meant.

    Any account may create a session of any run, so the owner is never guessed.

    Raises `UserError("ADDRESS" | "OWNER")`.
    """
    if named is not None:
        try:
            return checked_address(named)
        except ValueError as error:
            raise UserError(
                "ADDRESS", f"{named!r} is no address.", why=str(error), exit_code=2
            ) from None
    if own is None:
        raise UserError(
            "OWNER",
            "The owner of the session is missing.",
            why="a session belongs to the account that created it, and this home has no wallet",
            fix="hypergpud session show --owner ADDRESS, with the account of the run's owner",
            exit_code=2,
        )
    return own


def _own_account(talk: Invocation) -> Address | None:
    """None where the home has no wallet, or one that cannot be read: looking needs none."""
    if not files.has_wallet(talk.home):
        return None
    try:
        return files.address_in_home(talk.home)
    except UserError as error:
        talk.say(f"Whether the session is this home's cannot be told. {error.what} {error.why}")
        return None


def _meant(talk: Invocation, run_id: str | None) -> _Meant:
    """Which run, and its chain. Raises `UserError`."""
    config, _ = load_config(talk.home, talk.config, {}, os.environ)
    signed = _chosen(talk.home, run_id)
    manifest = signed.open()
    check_profile(manifest)
    if manifest.chain != "hypergpu" or manifest.settlement is UNSET:
        raise UserError(
            "RUN",
            f"The run {manifest.name!r} has no session.",
            why=f"only the chain 'hypergpu' keeps sessions, and its manifest says {manifest.chain!r}"
            if manifest.chain != "hypergpu"
            else "its manifest names no [settlement], and so no chain",
            fix="name another run of this home: hypergpud session show RUN",
            exit_code=2,
        )
    return _Meant(
        signed=signed,
        given=RunAccess(config=config, run=HomeRun(run=signed.run, manifest=manifest)),
    )


def _chosen(home: Path, named: str | None) -> SignedManifest:
    kept = runs_of(home)
    if named is None:
        try:
            last = last_run(home)
        except UserError as error:
            raise UserError(
                error.code,
                error.what,
                why=error.why,
                fix="name the run: hypergpud session show RUN",
                exit_code=error.exit_code,
            ) from None
        if last is not None:
            return last
    meant = [one for one in kept if named is not None and one.run.hex().startswith(named.lower())]
    signed = kept_manifest(home, meant[0].run) if len(meant) == 1 else None
    if signed is not None:
        return signed
    which = "" if named is None else f" whose id begins with {named!r}"
    raise UserError(
        "RUN",
        f"{'There are several runs' if meant else 'There is no run'}{which} in {home}.",
        why=named_runs(kept) or "it was in no run yet",
        fix="name more of the id"
        if meant
        else "name one of those"
        if kept
        else "hypergpud start, then ask again",
        exit_code=2,
    )


def _text(found: RunSession, whose: Address) -> str:
    run = f"run          {found.name} ({found.run[:SHOWN_DIGITS]})"
    if found.state == "none":
        state = f"state        none: {whose} has not put this run on the chain   hypergpud session create, or show --owner ADDRESS"
        return "\n".join([run, state, f"manifest     0x{found.own_manifest} in this home"])
    lines = [
        run,
        f"state        {found.state}",
        f"owner        {found.owner}" + ("  (this home's wallet)" if found.is_own else ""),
    ]
    if found.same_manifest:
        lines.append(f"manifest     0x{found.manifest}  ✓ this home's")
    else:
        lines += [
            f"manifest     0x{found.manifest}  ✕ NOT this home's",
            f"             0x{found.own_manifest} in this home",
        ]
    if found.certificate:
        lines.append(f"certificate  0x{found.certificate}  {_place(found)}")
    return "\n".join(lines)


def _place(found: RunSession) -> str:
    if found.certificate_round is None:
        return "✕ NOT among this home's certificates"
    last = found.last_round
    if found.certificate_round == last:
        return f"round {count(found.certificate_round)}, the last of this home"
    return f"round {count(found.certificate_round)}; this home's last is round {count(last or 0)}"
