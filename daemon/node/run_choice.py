"""Which run a daemon works on: a TOML file, one that its home was in before, that of the nodes it
joins, or the one that comes with HyperGPU.
"""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import msgspec

from daemon.config.settings import Config
from protocol.digest import SHOWN_DIGITS
from protocol.errors import UserError
from protocol.identity import Signer
from protocol.rules.versions import KNOWN_RULES, check_rules
from protocol.run.manifest import (
    Manifest,
    SignedManifest,
    load_manifest,
    names_rules,
    parse_manifest,
    seal,
)

BUNDLED_RUN = "stdlib-gpt.toml"
RUN_ID = re.compile(r"[0-9a-fA-F]{4,64}")  # or its beginning


class RunChoice(msgspec.Struct, frozen=True, kw_only=True):
    """A run, whom to join in it, and sentences about what was assumed.

    Without a manifest the nodes that are joined say what it is.
    """

    manifest: SignedManifest | None
    join: tuple[str, ...]
    assumed: tuple[str, ...] = ()


def bundled_run() -> Manifest:
    """The run that needs nothing but Python: a byte-level GPT on the standard library's own
    sources.
    """
    return parse_manifest(bundled_text(), f"the bundled {BUNDLED_RUN}")


def bundled_text() -> str:
    """Its file, as it comes."""
    return resources.files("configs").joinpath("runs", BUNDLED_RUN).read_text(encoding="utf-8")


def load_or_bundled_manifest(file: Path | None) -> Manifest:
    """The manifest in `file`, else the bundled one. Raises `UserError("MANIFEST")`."""
    return bundled_run() if file is None else load_manifest(file)


def choose_run(named: Path | None, join: tuple[str, ...], home: Path, signer: Signer) -> RunChoice:
    """What `start` works on, given --run and whom to join.

    Without either it goes on where this home was last.

    Whoever was met in a run before is called again, where nobody else is named. Raises `UserError`:
    "MANIFEST", "MANIFEST_OWNER", "RUN" where it cannot be told which run is meant, or "RULES" for a
    run of rules that this program does not take part in.
    """
    if named is None and join:
        return RunChoice(manifest=None, join=join, assumed=("the run of the node we join (--run)",))
    from daemon.home import recent_state  # noqa: PLC0415  # half a second of imports that a mistake in the settings does not pay

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
            f"the run {last.open().name} ({last.run.hex()[:12]}) that this home was in last (--run FILE, or --join MULTIADDR)"
        )
        if others := recent_state.describe_other_runs(home, last.run):
            assumed.append(
                f"none of the other runs that this home was in: {others} (--run with the id in brackets)"
            )
    else:
        manifest = seal_run(bundled_run(), signer)
        bundled = BUNDLED_RUN.removesuffix(".toml")
        assumed.append(
            f"the bundled run {bundled} (--run FILE, or --join MULTIADDR to take part in another swarm)"
        )
    check_rules(manifest.open().rules, manifest.run.hex()[:SHOWN_DIGITS])
    members = () if join else recent_state.members_of(home, manifest.run)
    if members:
        assumed.append(
            f"its members where they were seen last (--join): {members[0]}{f' and {len(members) - 1} more' if members[1:] else ''}"
        )
    return RunChoice(manifest=manifest, join=join or members, assumed=tuple(assumed))


def begin_run(config: Config, signed: SignedManifest) -> None:
    """Check that this version and these settings can work on the run, and note at once that the
    next start goes on with it.

    A start that is interrupted later leaves that note. Raises `UserError`: "ENGINE", "CHAIN",
    "TASK", "TASK_NOT_ALLOWED", "HOME".
    """
    from daemon.chain.client_setup import check_profile  # noqa: PLC0415
    from daemon.device.settings import WorkerSettings  # noqa: PLC0415
    from daemon.device.tasks.catalog import locate  # noqa: PLC0415
    from daemon.home import recent_state  # noqa: PLC0415  # as in `choose_run`
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
        raise UserError(
            "DISK_FULL",
            "The node cannot begin: its disk refuses to write.",
            why=str(full),
            fix="free some space there, or name another directory with --home PATH",
        ) from None


def _of_file(file: Path, home: Path, signer: Signer, assumed: list[str]) -> SignedManifest:
    """The run of a file.

    One that this home began under an earlier version of the rules goes on under that version.
    """
    from daemon.home import recent_state  # noqa: PLC0415  # as in `choose_run`

    manifest = load_manifest(file)
    if names_rules(file):
        return seal_run(manifest, signer)
    kept = recent_state.same_but_rules(home, manifest)
    for signed in kept:
        if (rules := signed.open().rules) in KNOWN_RULES:
            if rules != manifest.rules:
                assumed.append(
                    f"rules {rules}, under which this home began this run (rules = {manifest.rules} in the file begins another)"
                )
            return signed
    for signed in kept:
        shown = signed.run.hex()[:SHOWN_DIGITS]
        assumed.append(
            f"a new run: this home's run {manifest.name} ({shown}) is of rules {signed.open().rules}, which this program only reads"
            f" (hypergpud export {shown} FILE writes its model)"
        )
    return seal_run(manifest, signer)


def seal_run(manifest: Manifest, signer: Signer) -> SignedManifest:
    """The manifest as it travels.

    Raises `UserError("MANIFEST_OWNER")` for one that another key must sign.
    """
    if manifest.owner not in ("", signer.peer):
        raise UserError(
            "MANIFEST_OWNER",
            f"The run {manifest.name!r} belongs to {manifest.owner}, and only its owner can begin it.",
            why="its manifest must carry the owner's signature, which a TOML file cannot",
            fix="join it instead: hypergpud start --join MULTIADDR",
            exit_code=2,
        )
    return seal(manifest, signer if manifest.owner else None)
