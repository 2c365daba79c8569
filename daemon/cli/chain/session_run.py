"""Which run and which account a `session` command is about."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
from msgspec import UNSET

from daemon.chain.client_setup import check_profile
from daemon.chain.home_runs import HomeRun, certificates_on_disk, runs_of
from daemon.chain.sessions import RunSession, session_of
from daemon.cli.chain.access import RunAccess
from daemon.cli.chain.options import checked_account
from daemon.cli.invocation import Invocation
from daemon.config.loader import load_config
from daemon.home.recent_state import describe_runs as named_runs
from daemon.home.recent_state import kept_manifest, last_run
from daemon.wallet import files
from protocol.chain.keccak import Address
from protocol.chain.port import RunStatus
from protocol.errors import UserError
from protocol.run.manifest import SignedManifest


class SessionRun(msgspec.Struct, frozen=True, kw_only=True):
    """The run of one `session` command, and how to reach its chain."""

    signed: SignedManifest
    access: RunAccess


def session_run(invocation: Invocation, run_id: str | None) -> SessionRun:
    """Find the run and check that its chain keeps sessions. Raises `UserError`."""
    config, _ = load_config(invocation.home, invocation.config, {}, os.environ)
    signed = _chosen(invocation.home, run_id)
    manifest = signed.open()
    check_profile(manifest)
    if manifest.chain != "hypergpu" or manifest.settlement is UNSET:
        raise UserError(
            "RUN",
            f"The run {manifest.name!r} has no session.",
            why=f"only the chain 'hypergpu' keeps sessions, and its manifest names"
            f" {manifest.chain!r}"
            if manifest.chain != "hypergpu"
            else "its manifest has no [settlement], and so no chain",
            fix="name another run of this home: hypergpud session show RUN",
            exit_code=2,
        )
    access = RunAccess(config=config, run=HomeRun(run=signed.run, manifest=manifest))
    return SessionRun(signed=signed, access=access)


def compare_session(
    invocation: Invocation, which: SessionRun, status: RunStatus, own: Address | None
) -> RunSession:
    """Return the chain's session beside the manifest and the certificates of this home."""
    certificates = certificates_on_disk(invocation.home, which.access.run, invocation.say)
    return session_of(status, which.signed, own, certificates)


def session_owner(named: str | None, own: Address | None) -> Address:
    """Return the account whose session the command is about.

    Any account may create a session of any run, so this never guesses an owner.

    Raises `UserError("ADDRESS" | "OWNER")`.
    """
    if named is not None:
        return checked_account(named)
    if own is None:
        raise UserError(
            "OWNER",
            "The owner of the session is missing.",
            why="a session belongs to the account that created it, and this home has no wallet",
            fix="hypergpud session show --owner ADDRESS, with the account of the run's owner",
            exit_code=2,
        )
    return own


def own_account(invocation: Invocation) -> Address | None:
    """The account of this home's wallet; None without a wallet, or with an unreadable one."""
    if not files.has_wallet(invocation.home):
        return None
    try:
        return files.address_in_home(invocation.home)
    except UserError as error:
        invocation.say(
            "Cannot determine whether the session belongs to this home's wallet."
            f" {error.what} {error.why}"
        )
        return None


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
    matches = [one for one in kept if named is not None and one.run.hex().startswith(named.lower())]
    signed = kept_manifest(home, matches[0].run) if len(matches) == 1 else None
    if signed is not None:
        return signed
    which = "several runs" if matches else "no run"
    if named is not None:
        which = f"{which} whose id begins with {named!r}"
    if matches:
        fix = "give more digits of the id"
    elif kept:
        fix = "give the id of one of those runs"
    else:
        fix = "hypergpud start, then try again"
    raise UserError(
        "RUN",
        f"{home} has {which}.",
        why=named_runs(kept) or "this home has not been in a run yet",
        fix=fix,
        exit_code=2,
    )
