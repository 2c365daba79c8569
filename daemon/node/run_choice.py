"""Chooses the run that a node works on.

The run comes from a TOML file, from this home, from the nodes to join, or with HyperGPU.
"""

from __future__ import annotations

import re
import time
from importlib import resources
from pathlib import Path

import msgspec

from daemon.config.settings import Config
from protocol.digest import SHOWN_DIGITS
from protocol.errors import UserError
from protocol.identity import PeerId, Signer
from protocol.membership.invitation_token import (
    Invitation,
    check_expiry,
    check_token,
    decode_token,
    is_token,
    token_fault,
)
from protocol.rules.versions import KNOWN_RULES, check_rules
from protocol.run.founders import founded_by
from protocol.run.manifest import Manifest, SignedManifest, seal
from protocol.run.manifest_file import load_manifest, names_rules, parse_manifest

BUNDLED_RUN = "stdlib-gpt.toml"
RUN_OF_THE_JOINED = "Run: the run of the node at --join (change: --run FILE)."
# A run's id, or its first digits.
RUN_ID = re.compile(r"[0-9a-fA-F]{4,64}")


class RunChoice(msgspec.Struct, frozen=True, kw_only=True):
    """A run, the addresses to join, and one sentence for each assumption.

    Without a manifest, the joined nodes name the run.
    """

    manifest: SignedManifest | None
    join: tuple[str, ...]
    assumed: tuple[str, ...] = ()


def bundled_run() -> Manifest:
    """Return the bundled run, which trains a byte-level GPT on Python's standard library."""
    return parse_manifest(bundled_text(), f"the bundled {BUNDLED_RUN}")


def bundled_text(name: str = BUNDLED_RUN) -> str:
    """Return the text of the bundled run's file, or that of another one that comes with us."""
    return resources.files("configs").joinpath("runs", name).read_text(encoding="utf-8")


def load_or_bundled_manifest(file: Path | None) -> Manifest:
    """Return the manifest in `file`, else the bundled one. Raises `UserError("MANIFEST")`."""
    return bundled_run() if file is None else load_manifest(file)


def invitation_in(join: tuple[str, ...]) -> Invitation | None:
    """Return the invitation that --join names; None where it names addresses.

    Raises:
        UserError: "INVITATION" for a line that is no whole invitation, or one that expired.
    """
    tokens = [text for text in join if is_token(text)]
    if not tokens:
        return None
    if len(join) > 1:
        raise UserError(
            "INVITATION",
            "An invitation names the run and its addresses, so --join takes nothing beside it.",
            fix="hypergpud start --join INVITATION",
            exit_code=2,
        )
    invitation = decode_token(tokens[0])
    check_expiry(invitation.granted(), time.time())
    if not invitation.addresses:
        raise token_fault("it names no address")
    return invitation


def choose_run(
    named: Path | None,
    join: tuple[str, ...],
    home: Path,
    signer: Signer,
    invitation: Invitation | None = None,
) -> RunChoice:
    """Choose the run for `hypergpud start`, from --run and the addresses to join.

    An invitation chooses its run, also where this home is in others.

    Without either, the home's last run continues. The node also joins the members that the home met
    in the run before, so that it finds the run again where the addresses to join are gone.

    Raises:
        UserError: "MANIFEST" or "MANIFEST_OWNER" for the file, "RUN" where the run is ambiguous,
            "RULES" for a run of rules that this program does not know.
    """
    if invitation is not None:
        return _of_invitation(invitation, named, join, home)
    if named is None and join:
        return RunChoice(manifest=None, join=join, assumed=(RUN_OF_THE_JOINED,))
    # A late import: it takes half a second, which an error in the settings does not pay.
    from daemon.home import recent_state  # noqa: PLC0415

    assumed: list[str] = []
    if named is not None:
        by_id = not named.exists() and RUN_ID.fullmatch(str(named))
        manifest = (
            recent_state.named_run(home, str(named))
            if by_id
            else _of_file(named, home, signer, assumed)
        )
    elif (last := recent_state.last_run(home)) is not None:
        manifest = last
        assumed.append(
            f"Run: {last.open().name} ({last.run.hex()[:12]}), the last run of this home"
            " (change: --run FILE, or --join MULTIADDR)."
        )
        if others := recent_state.describe_other_runs(home, last.run):
            assumed.append(
                f"Other runs of this home: {others}"
                " (to continue one: --run with the id in brackets)."
            )
    else:
        manifest = seal_run(bundled_run(), signer)
        bundled = BUNDLED_RUN.removesuffix(".toml")
        assumed.append(
            f"Run: {bundled}, which comes with HyperGPU"
            " (change: --run FILE, or --join MULTIADDR to join a swarm)."
        )
    check_rules(manifest.open().rules, manifest.run.hex()[:SHOWN_DIGITS])
    members = recent_state.members_of(home, manifest.run)
    if members:
        more = f" and {len(members) - 1} more" if members[1:] else ""
        also = "Also joining" if join else "Joining"
        assumed.append(f"{also} the members of the last start: {members[0]}{more}.")
    return RunChoice(
        manifest=manifest, join=tuple(dict.fromkeys((*join, *members))), assumed=tuple(assumed)
    )


def _of_invitation(
    invitation: Invitation, named: Path | None, join: tuple[str, ...], home: Path
) -> RunChoice:
    """Return the run of an invitation, from this home where it is known here.

    The addresses of the settings are tried with those of the invitation.
    """
    # A late import, as in `choose_run`.
    from daemon.home import recent_state  # noqa: PLC0415

    shown = invitation.run.hex()[:SHOWN_DIGITS]
    if named is not None and not invitation.run.hex().startswith(str(named).lower()):
        raise UserError(
            "INVITATION",
            f"This invitation is for the run {shown}, and --run names {str(named)!r}.",
            fix="leave --run out: the invitation names the run",
            exit_code=2,
        )
    known = recent_state.kept_manifest(home, invitation.run)
    if known is not None:
        check_rules(known.open().rules, shown)
    return RunChoice(
        manifest=known,
        join=tuple(
            dict.fromkeys(
                (*invitation.addresses, *join, *recent_state.members_of(home, invitation.run))
            )
        ),
        assumed=(f"Run: {shown}, to which the invitation invites.",),
    )


def enter_run(
    config: Config, signed: SignedManifest, peer: PeerId, invitation: Invitation | None
) -> None:
    """Begin the run, and keep the proof of the invitation with which this node enters it.

    Raises:
        UserError: "NOT_INVITED" in a run by invitation that this node has none for, "INVITATION"
            for an invitation that does not fit the run, and the errors of `begin_run`.
    """
    # Late imports, as in `choose_run`.
    from daemon.home import run_membership  # noqa: PLC0415
    from protocol.ports.disk import DiskFull  # noqa: PLC0415

    run_membership.check_not_revoked(config.home, signed, peer)
    if invitation is None:
        run_membership.check_invited(config.home, signed, peer)
    else:
        check_token(invitation, signed.run, signed.open().owner)
    begin_run(config, signed)
    if invitation is not None:
        try:
            run_membership.accept_invitation(config.home, signed, invitation, peer, time.time())
        except DiskFull as full:
            raise _disk_full(full) from None


def begin_run(config: Config, signed: SignedManifest) -> None:
    """Check that this node can work on the run, and save it as the home's last run.

    A start that is interrupted later leaves the saved run, with which the next start continues.

    Raises:
        UserError: "ENGINE", "CHAIN", "TASK", "TASK_NOT_ALLOWED", "HOME" or "DISK_FULL".
    """
    # Late imports, as in `choose_run`.
    from daemon.chain.client_setup import check_profile  # noqa: PLC0415
    from daemon.device.settings import WorkerSettings  # noqa: PLC0415
    from daemon.device.tasks.catalog import locate  # noqa: PLC0415
    from daemon.home import recent_state  # noqa: PLC0415
    from daemon.services.training.engine import check_engine  # noqa: PLC0415
    from protocol.ports.disk import DiskFull  # noqa: PLC0415

    manifest = signed.open()
    check_rules(manifest.rules, signed.run.hex()[:SHOWN_DIGITS])
    check_engine(manifest.engine)
    check_profile(manifest)
    locate(manifest.task, WorkerSettings(allow_custom_task=config.worker.allow_custom_task))
    try:
        recent_state.save_recent_state(
            config.home, signed, recent_state.last_port(config.home), hoped=config.network.join
        )
    except DiskFull as full:
        raise _disk_full(full) from None


def _disk_full(full: Exception) -> UserError:
    return UserError(
        "DISK_FULL",
        "Cannot start: the disk is full or not writable.",
        why=str(full),
        fix="free some space there, or name another directory with --home PATH",
    )


def _of_file(file: Path, home: Path, signer: Signer, assumed: list[str]) -> SignedManifest:
    """Return the run of a file.

    A run that this home began under an earlier version of the rules continues under that version.
    """
    # A late import, as in `choose_run`.
    from daemon.home import recent_state  # noqa: PLC0415

    manifest = load_manifest(file)
    if names_rules(file):
        return seal_run(manifest, signer)
    kept = recent_state.same_but_rules(
        home, lambda rules: founded_by(load_manifest(file, rules=rules), signer.peer)
    )
    for signed in kept:
        if (rules := signed.open().rules) in KNOWN_RULES:
            if rules != manifest.rules:
                assumed.append(
                    f"Rules: {rules}, under which this home began this run"
                    f" (rules = {manifest.rules} in the file begins another run)."
                )
            return signed
    for signed in kept:
        shown = signed.run.hex()[:SHOWN_DIGITS]
        assumed.append(
            f"This start begins a new run. This home's run {manifest.name} ({shown}) has rules"
            f" {signed.open().rules}, which this program only reads;"
            f" hypergpud export {shown} FILE writes its model."
        )
    return seal_run(manifest, signer)


def seal_run(manifest: Manifest, signer: Signer) -> SignedManifest:
    """Sign the manifest, where this node is the owner.

    A manifest without founders gets this node as its founder, and as its owner where it has none.

    Raises `UserError("MANIFEST_OWNER")` for the manifest of another owner.
    """
    manifest = founded_by(manifest, signer.peer)
    if manifest.owner not in ("", signer.peer):
        raise UserError(
            "MANIFEST_OWNER",
            f"The run {manifest.name!r} belongs to {manifest.owner}, and only its owner can start"
            " it.",
            why="its manifest must carry the owner's signature, which a TOML file cannot",
            fix="join it instead: hypergpud start --join MULTIADDR",
            exit_code=2,
        )
    return seal(manifest, signer if manifest.owner else None)
