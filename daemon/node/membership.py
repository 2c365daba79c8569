"""A node's part in who takes part: the owner's records on disk, and the line that invites."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import trio

from daemon.chain.home_runs import RECORDS_FILE, run_folder
from daemon.home.invitations import (
    Entry,
    certificate_of,
    join_command,
    note_uses,
    terms_of,
    usual_invitation,
)
from daemon.home.run_membership import (
    read_owner_records,
    revoked_error,
    save_owner_records,
)
from daemon.journal import Journal
from daemon.node.node_parts import NodeParts
from daemon.system.offload import in_thread
from protocol.journal import Trouble, Warned
from protocol.membership.owner_record import OwnerRecords
from protocol.ports.disk import DiskFull
from protocol.rules.versions import RULES_4
from protocol.run.manifest import Manifest, SignedManifest
from protocol.status.join_line import is_local, is_loopback

# Between two looks at the file, into which the owner's commands write.
LOOK_S = 1.0


async def keep_owner_records(
    home: Path, signed: SignedManifest, records: OwnerRecords, journal: Journal
) -> None:
    """Keep the file and the records alike, until cancelled.

    The owner's commands write into the file; other nodes give records.
    """
    path = run_folder(home, signed.run) / RECORDS_FILE
    seen, warned, version = 0, False, records.version
    while True:
        changed = await in_thread(partial(_changed_ns, path))
        if changed not in (0, seen):
            await in_thread(partial(read_owner_records, home, records, signed.run))
            seen = changed
        if records.version != version:
            version = records.version
            try:
                await in_thread(partial(save_owner_records, home, records, signed.run))
                seen, warned = await in_thread(partial(_changed_ns, path)), False
            except DiskFull as full:
                if not warned:
                    message = f"The next start may not know what the run's owner signed: {full}"
                    journal.record(Warned(code="DISK_FULL", message=message))
                warned = True
        await trio.sleep(LOOK_S)


def _changed_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


async def count_uses(node: NodeParts, signed: SignedManifest, records: OwnerRecords) -> None:
    """Write down how often the owner's invitations were used, until cancelled.

    So `hypergpud invite` prints no line that admits nobody any more.
    """
    if signed.open().owner != node.signer.peer:
        return
    seen: tuple[Mapping[str, int], frozenset[str]] = {}, frozenset()
    while True:
        now = records.used, records.revoked
        if now != seen:
            try:
                await in_thread(partial(note_uses, node.config.home, signed.run, *now))
                seen = now
            except DiskFull:
                # `keep_owner_records` reports a full disk; the next look tries again.
                pass
        await trio.sleep(LOOK_S)


async def leave_when_revoked(node: NodeParts, manifest: Manifest, records: OwnerRecords) -> None:
    """End the node once it hears that the run's owner revoked it."""
    me = node.signer.peer
    while me not in records.revoked:
        await trio.sleep(LOOK_S)
    error = revoked_error(manifest, me)
    node.journal.record(Trouble(code="REVOKED", level="bad", message=error.what))
    node.say(str(error))
    node.shutdown.fail(error)
    node.shutdown.request("the run's owner revoked this node")


def ready_line(node: NodeParts, signed: SignedManifest, addresses: Sequence[str]) -> str:
    """Return the line that says how others join, and where this node's page is."""
    manifest, first = signed.open(), addresses[0]
    ready = f"Ready (page: {node.page_url})" if node.page_url else "Ready"
    if manifest.rules < RULES_4 or manifest.admits == "open":
        local = is_local(first) and not is_loopback(first)
        others = "others in this network" if local else "others"
        return f"{ready}: {others} join with  hypergpud start --join {first}"
    if manifest.owner != node.signer.peer:
        return f"{ready} at {first}. The run's owner invites others:  hypergpud invite"
    entry = Entry(
        addresses=tuple(addresses),
        certificate=certificate_of(node.journal.status().run.tip, signed.run),
    )
    try:
        made = usual_invitation(node.config.home, signed, node.signer, entry, time.time())
    except DiskFull as full:
        return f"{ready} at {first}. No invitation could be made: {full}"
    return f"{ready}: a friend joins with  {join_command(made.token)}\n{terms_of(made)}"
