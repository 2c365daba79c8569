"""Keeps a home's recent state from one start to the next: its port, its runs, and their members.

With `<home>/remembered.json`, `hypergpud start` continues the home's last run, on the port at which
other nodes look for it, with the members that it met. The file is written when a run begins, and
while it goes on. Its name and format are those of earlier versions.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from daemon.chain.home_runs import MANIFEST_FILE, HomeRun, keep_manifest, run_folder, runs_of
from daemon.disk.atomic import write_atomically
from protocol.digest import SHOWN_DIGITS, Digest
from protocol.errors import UserError
from protocol.identity import PeerId
from protocol.messages.base import UNREADABLE
from protocol.run.manifest import MAX_MANIFEST_BYTES, Manifest, SignedManifest

RECENT_STATE_FILE = "remembered.json"
# The file has one line for each run. The manifests of all runs stay.
MOST_RUNS = 32
# For each run. One member that answers names the others.
MOST_ADDRESSES = 32
MOST_BYTES = 1 << 20
_ADDRESS = r"^/(ip4|ip6|dns|dns4|dns6)/[^/]+/tcp/[0-9]+/p2p/[0-9A-Za-z]+$"

_NAME = r"^/dnsaddr/[A-Za-z0-9._-]+(/p2p/[0-9A-Za-z]+)?$"


class RecentRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run, and the addresses of members that were connected in it."""

    run: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    members: tuple[Annotated[str, Meta(pattern=_ADDRESS)], ...] = ()
    # The names in DNS with which this home joined the run.
    names: tuple[Annotated[str, Meta(pattern=_NAME)], ...] = ()


class RecentState(msgspec.Struct, frozen=True, kw_only=True):
    """The content of the file. The first of `runs` is the home's last run."""

    port: Annotated[int, Meta(ge=0, le=65535)] = 0
    runs: tuple[RecentRun, ...] = ()


def load_recent_state(home: Path) -> RecentState | None:
    """Return the recent state; an empty one without a file, None for an unreadable file."""
    try:
        with (home / RECENT_STATE_FILE).open("rb") as stream:
            return msgspec.json.decode(stream.read(MOST_BYTES), type=RecentState)
    except FileNotFoundError:
        return RecentState()
    except (OSError, *UNREADABLE):
        return None


def save_recent_state(
    home: Path,
    signed: SignedManifest,
    port: int,
    members: tuple[str, ...] = (),
    hoped: tuple[str, ...] = (),
) -> None:
    """Save the run that this home is in. Raises `DiskFull`.

    Args:
        home: The home.
        signed: The run, which becomes the home's last run.
        port: The port at which other nodes look for this one.
        members: The addresses of connected members. Saved ones stay behind them.
        hoped: Addresses to join that have not answered yet. They are saved if no member is known.
    """
    keep_manifest(home, signed)
    known = load_recent_state(home) or RecentState()
    name = signed.run.hex()
    before = next((visit for visit in known.runs if visit.run == name), RecentRun(run=name))
    names = tuple(address for address in hoped if re.fullmatch(_NAME, address)) or before.names
    hoped = tuple(address for address in hoped if re.fullmatch(_ADDRESS, address))
    # Earlier members stay behind the present ones, which may all be gone at the next start.
    met = {_peer_of(address) for address in members}
    earlier = [address for address in before.members if _peer_of(address) not in met]
    kept = (*members, *earlier[: MOST_ADDRESSES // 2 if members else None])
    visit = RecentRun(
        run=name, members=(kept or hoped)[:MOST_ADDRESSES], names=names[:MOST_ADDRESSES]
    )
    now = RecentState(
        port=port, runs=(visit, *(other for other in known.runs if other.run != name))[:MOST_RUNS]
    )
    if now != known:
        write_atomically(
            home / RECENT_STATE_FILE,
            [memoryview(msgspec.json.format(msgspec.json.encode(now)) + b"\n")],
        )


def _peer_of(address: str) -> PeerId:
    return address.rpartition("/p2p/")[2]


def last_port(home: Path) -> int:
    """Return the port at which other nodes look for this one, or 0."""
    known = load_recent_state(home)
    return known.port if known else 0


def kept_manifest(home: Path, run: Digest) -> SignedManifest | None:
    """Return the manifest of a run of this home; None where it is missing or unreadable."""
    try:
        with (run_folder(home, run) / MANIFEST_FILE).open("rb") as stream:
            signed = msgspec.msgpack.decode(
                stream.read(MAX_MANIFEST_BYTES + 1024), type=SignedManifest
            )
        signed.open()
    except (OSError, UserError, *UNREADABLE):
        return None
    return signed if signed.run == run else None


def members_of(home: Path, run: Digest) -> tuple[str, ...]:
    """Return the addresses at which members of the run were seen last."""
    known = load_recent_state(home) or RecentState()
    return next((visit.members for visit in known.runs if visit.run == run.hex()), ())


def last_run(home: Path) -> SignedManifest | None:
    """Return the home's last run; None for a home without runs.

    Raises `UserError("RUN")` where the last run is unknown.
    """
    known, kept = load_recent_state(home), runs_of(home)
    if known and known.runs:
        return _of_this_home(home, bytes.fromhex(known.runs[0].run))
    if len(kept) > 1:
        raise UserError(
            "RUN",
            f"This home was in several runs: {describe_runs(kept)}.",
            why=f"{home / RECENT_STATE_FILE} does not say which was the last"
            if known is None
            else "none of them is saved as the last",
            fix=f"hypergpud start --run {kept[0].run.hex()[:SHOWN_DIGITS]}   (or another of them)",
            exit_code=2,
        )
    return kept_manifest(home, kept[0].run) if kept else None


def chosen_run(home: Path, beginning: str | None) -> SignedManifest:
    """Return the run whose id starts with `beginning`, else the last one.

    Raises `UserError("RUN")`.
    """
    if beginning is not None:
        return named_run(home, beginning)
    last = last_run(home)
    if last is None:
        raise UserError(
            "RUN",
            f"{home} has not been in any run.",
            fix="name the home with --home PATH, or begin with hypergpud start",
            exit_code=2,
        )
    return last


def named_run(home: Path, beginning: str) -> SignedManifest:
    """Return the run of this home whose id starts with `beginning`.

    Raises `UserError("RUN")`, which names the home's runs.
    """
    kept = runs_of(home)
    meant = [one for one in kept if one.run.hex().startswith(beginning.lower())]
    if len(meant) != 1:
        what = (
            f"Several runs of this home have an id that begins with {beginning!r}."
            if meant
            else f"No run of this home has an id that begins with {beginning!r}, and no file has"
            " that name."
        )
        raise UserError(
            "RUN",
            what,
            why=f"it was in {describe_runs(kept)}" if kept else f"{home} has not been in any run",
            fix="hypergpud start --run FILE, or --run with more of the id"
            if meant
            else "hypergpud start --run FILE, or --join MULTIADDR",
            exit_code=2,
        )
    return _of_this_home(home, meant[0].run)


def same_but_rules(home: Path, under: Callable[[int], Manifest]) -> list[SignedManifest]:
    """Return the home's runs that a run file could have begun under some version of the rules.

    `under` returns the file's manifest under a version, whose defaults may be others, and raises
    `UserError` where the file names what that version does not have. The run that was written to
    last comes first.
    """
    alike: list[Digest] = []
    for one in runs_of(home):
        with suppress(UserError):
            if under(one.manifest.rules) == one.manifest:
                alike.append(one.run)
    return [signed for run in alike if (signed := kept_manifest(home, run)) is not None]


def run_among(home: Path, join: tuple[str, ...]) -> SignedManifest | None:
    """Return the home's last run, if one of these addresses leads to it; else None.

    They are addresses of its members, or the names in DNS with which this home joined it.
    """
    known = load_recent_state(home)
    if not known or not known.runs:
        return None
    last = known.runs[0]
    peers = {_peer_of(address) for address in join if "/p2p/" in address}
    met = peers & set(map(_peer_of, last.members))
    if not met and not set(join) & set(last.names):
        return None
    return kept_manifest(home, bytes.fromhex(last.run))


def describe_other_runs(home: Path, run: Digest) -> str:
    """Describe the other runs of this home; "" where there are none."""
    return describe_runs([one for one in runs_of(home) if one.run != run])


def _of_this_home(home: Path, run: Digest) -> SignedManifest:
    signed = kept_manifest(home, run)
    if signed is None:
        raise UserError(
            "RUN",
            f"Cannot continue the run {run.hex()[:SHOWN_DIGITS]} that this home was in last.",
            why=f"its manifest is missing or damaged: {run_folder(home, run) / MANIFEST_FILE}",
            fix="hypergpud start --join MULTIADDR of one of its members, or --run FILE",
            exit_code=2,
        )
    return signed


def describe_runs(runs: list[HomeRun]) -> str:
    """Return each run's name and the first digits of its id."""

    return ", ".join(f"{one.manifest.name} ({one.run.hex()[:SHOWN_DIGITS]})" for one in runs)
