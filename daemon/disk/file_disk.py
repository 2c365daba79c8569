"""`FileDisk`: the port `Disk` over a directory.

    <root>/runs/<run>/checkpoints/<number>-<tip>.safetensors    see `checkpoint_file`; the last few
    <root>/runs/<run>/checkpoints/left/                         the last few of branches that this node left
    <root>/runs/<run>/ledger.safetensors                        see `ledger_file`
    <root>/runs/<run>/stands                                    see `slots_file`
    <root>/runs/<run>/certificates                              see `chain_file`
    <root>/runs/<run>/proofs/                                   see `proof_files`

All of it is private to its owner (files 0600, directories 0700). One process writes; others may
read at the same time.

What cannot be read is neither removed nor written over. Where a node cannot go on without it,
reading raises `UserError("DAMAGED")`, which names the file and the command that sets it aside
(`daemon/home/run_repair.py`).
"""

from __future__ import annotations

import errno
import os
import shlex
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import trio

from daemon.disk.atomic import (
    FaultHook,
    disk_full,
    make_private_directory,
    no_fault,
    remove_drafts,
    set_aside,
    sync_directory,
)
from daemon.disk.chain_file import ChainFile
from daemon.disk.checkpoint_file import (
    CheckpointEntry,
    checkpoint_name,
    checkpoints_in,
    read_checkpoint,
    write_checkpoint,
)
from daemon.disk.damage_reports import DamageReports, ReportDamage
from daemon.disk.ledger_file import read_ledger, write_ledger
from daemon.disk.open_state import OpenState, open_state
from daemon.disk.proof_files import ProofFiles
from daemon.disk.slots_file import SlotsFile
from daemon.disk.tensors import DamagedFile, UnreadableFile, place_of
from daemon.home.pinned_directory import PinnedDirectory
from protocol.digest import SHOWN_DIGITS, Digest
from protocol.errors import UserError
from protocol.ports.disk import DiskFull
from protocol.ports.disk_records import Checkpoint, LedgerRecord, ViewRecord
from protocol.ports.offload import Offload

# The newest may be found damaged, and a joining node may still be reading the one before.
KEPT = 3
# Of branches that were left on purpose: what a node certified itself is not gone at once.
LEFT_KEPT = 3
LEFT = "left"
CERTIFICATES = "certificates"
STANDS = "stands"
LEDGER = "ledger.safetensors"
CHECKPOINTS = "checkpoints"
# Of every run. A number comes first: a draft has the same ending, and is read by nobody before it
# is whole.
CHECKPOINT_OF = "runs/*/checkpoints/[0-9]*-{tip}.safetensors"


class FileDisk:
    """Satisfies `ports.Disk`. `damaged` lists, in words, what was found damaged since the start."""

    def __init__(
        self,
        root: Path,
        offload: Offload,
        keep: int = KEPT,
        fault: FaultHook = no_fault,
        report: ReportDamage = lambda _: None,
    ) -> None:
        """`report` hears each of `damaged` once."""
        if keep < 1:
            raise ValueError("at least one checkpoint is kept")
        damage = DamageReports(offload, report)
        self.damaged, self._found, self._apart = damage.told, damage.found, damage.apart
        self._root = root
        self._pinned: PinnedDirectory | None = None
        self._keep = keep
        self._fault = fault
        self._writing = trio.Lock()
        self._quick = trio.Lock()
        self._chains: dict[Digest, ChainFile] = {}
        self._slots: dict[Digest, SlotsFile] = {}
        self._cleared: set[Digest] = set()

    # ------------------------------------------------------------------------------------------ checkpoints

    async def _change(self, work: Callable[[], None]) -> None:
        """`work`, which writes.

        Raises `DiskFull` where the root was removed or replaced since the first write: nothing
        makes it anew.
        """

        def look_first() -> None:
            try:
                if self._pinned is None and self._root.is_dir():
                    self._pinned = PinnedDirectory(self._root)
                if self._pinned is not None:
                    self._pinned.check()
            except OSError as gone:
                raise DiskFull(f"{self._root} was removed or replaced: {gone.strerror}") from gone
            work()

        await self._apart(look_first)

    async def save_checkpoint(
        self, checkpoint: Checkpoint, superseded: Collection[Digest] = ()
    ) -> None:
        async with self._writing:
            await self._change(lambda: self._save_checkpoint(checkpoint, superseded))

    def _save_checkpoint(self, checkpoint: Checkpoint, superseded: Collection[Digest]) -> None:
        self._clear_drafts(checkpoint.run)
        path = self._checkpoints(checkpoint.run) / checkpoint_name(
            checkpoint.number, checkpoint.tip
        )
        # The file system's own dates have the clock's steps and a tick's resolution: two branches
        # of one number could change places.
        written_ns = max(
            [time.time_ns(), *(entry.written_ns + 1 for entry in self._kept(checkpoint.run))]
        )
        write_checkpoint(path, checkpoint, self._fault, written_ns)
        old = [
            entry
            for entry in self._kept(checkpoint.run)
            if entry.path != path and entry.tip in superseded
        ]
        for entry in old[: max(0, len(old) - (self._keep - 1))]:
            self._fault("remove")
            # The new one is safe; what cannot be removed now is tried again after the next.
            with suppress(OSError):
                entry.path.unlink(missing_ok=True)

    async def leave_checkpoints(self, run: Digest, tips: Collection[Digest]) -> None:
        async with self._writing:
            await self._change(lambda: self._leave_checkpoints(run, tips))

    def _leave_checkpoints(self, run: Digest, tips: Collection[Digest]) -> None:
        apart = self._checkpoints(run) / LEFT
        try:
            make_private_directory(apart)
            for entry in self._kept(run):
                if entry.tip in tips:
                    self._fault("rename")
                    entry.path.rename(apart / entry.path.name)
            sync_directory(apart.parent)
        except OSError as error:
            raise disk_full(apart, 0, error) from error
        by_age = sorted(checkpoints_in(apart), key=lambda kept: kept.written_ns)
        for entry in by_age[:-LEFT_KEPT]:
            self._fault("remove")
            with suppress(OSError):  # tried again when the next branch is left
                entry.path.unlink(missing_ok=True)

    async def checkpoints(self, run: Digest) -> list[tuple[int, Digest]]:
        return [(entry.number, entry.tip) for entry in await self._apart(lambda: self._kept(run))]

    async def load_checkpoint(self, run: Digest) -> Checkpoint | None:
        return await self._apart(lambda: self._load_checkpoint(run))

    def _load_checkpoint(self, run: Digest) -> Checkpoint | None:
        damaged: list[tuple[CheckpointEntry, DamagedFile]] = []
        whole: Checkpoint | None = None
        for entry in reversed(self._kept(run)):
            try:
                whole = read_checkpoint(entry.path, run, entry.tip, entry.number)
                break
            except FileNotFoundError:
                # Removed while we looked: there is a newer one.
                continue
            except DamagedFile as error:
                damaged.append((entry, error))
        if damaged and whole is None:
            entry, error = damaged[0]
            raise self.damage(
                run,
                f"No checkpoint of this run can be read; the newest, number {entry.number}, {error}.",
                str(entry.path),
            )
        then = f"Number {whole.number} is taken instead" if whole else ""
        for entry, error in damaged:
            self._found(
                f"Checkpoint {entry.number} {error}. {then}; the next ones push the damaged file out: {entry.path}"
            )
        return whole

    async def open_state(self, tip: Digest) -> OpenState | None:
        return await self._apart(lambda: self._open_state(tip))

    def _open_state(self, tip: Digest) -> OpenState | None:
        for path in self._checkpoints_of(tip):
            try:
                return open_state(path, self._apart)
            except DamagedFile as error:
                self._found(
                    f"A checkpoint {error}. Members who ask for it are sent elsewhere; the next ones push it out: {path}"
                )
            except OSError:
                continue
        return None

    async def read_state(self, tip: Digest, offset: int, size: int) -> bytes | None:
        return await self._apart(lambda: self._read_state(tip, offset, size))

    def _read_state(self, tip: Digest, offset: int, size: int) -> bytes | None:
        if offset < 0 or size < 0:
            raise ValueError(f"no {size} bytes at {offset}")
        for path in self._checkpoints_of(tip):
            try:
                handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                start, stop = place_of(handle, ("anchor", "momentum"))
                return os.pread(handle, max(0, min(size, stop - start - offset)), start + offset)
            except (DamagedFile, OSError) as error:
                self._found(
                    f"A checkpoint {error}. Members who ask for it are sent elsewhere; the next ones push it out: {path}"
                )
            finally:
                os.close(handle)
        return None

    # ------------------------------------------------------------------------------------------ ledger

    async def save_ledger(self, record: LedgerRecord) -> None:
        async with self._writing:
            await self._change(lambda: self._save_ledger(record))

    def _save_ledger(self, record: LedgerRecord) -> None:
        self._clear_drafts(record.run)
        write_ledger(self._ledger(record.run), record, self._fault)

    async def load_ledger(self, run: Digest) -> LedgerRecord | None:
        return await self._apart(lambda: self._load_ledger(run))

    def _load_ledger(self, run: Digest) -> LedgerRecord | None:
        try:
            return read_ledger(self._ledger(run), run)
        except FileNotFoundError:
            return None
        except UnreadableFile as error:
            raise self.damage(
                run,
                f"The ledger {error}.",
                f"work that waits for a round may be in it: {self._ledger(run)}",
            ) from None
        except DamagedFile as error:
            aside = set_aside(self._ledger(run))
            self._found(
                f"The ledger {error}. Work that waited in it for a round is lost; the damaged file was set aside: {aside}"
            )
            return None

    # ------------------------------------------------------------------------------------------ stands

    async def save_view_records(self, run: Digest, records: Sequence[ViewRecord]) -> None:
        body = msgspec.msgpack.encode(tuple(records))
        # Not behind a checkpoint on its way, which takes seconds and is another file.
        async with self._quick:
            slots = await self._apart(lambda: self._stands(run))
            if slots.exists:
                await self._change(lambda: slots.write(body))
                return
            async with self._writing:  # made as a draft, which others clear away
                await self._change(lambda: self._first_stands(run, slots, body))

    def _first_stands(self, run: Digest, slots: SlotsFile, body: bytes) -> None:
        self._clear_drafts(run)
        slots.write(body)

    async def load_view_records(self, run: Digest) -> list[ViewRecord]:
        async with self._quick:
            slots = await self._apart(lambda: self._stands(run))
        return msgspec.msgpack.decode(slots.body, type=list[ViewRecord]) if slots.body else []

    def _stands(self, run: Digest) -> SlotsFile:
        slots = self._slots.get(run)
        if slots is None:
            slots = SlotsFile(self._run(run) / STANDS, self._fault, self._found)
            if slots.unreadable:
                raise self.damage(
                    run,
                    f"The stands of this run cannot be read ({slots.unreadable}).",
                    str(self._run(run) / STANDS),
                )
            self._slots[run] = slots
        return slots

    # ------------------------------------------------------------------------------------------ certificates

    async def append_certificate(self, run: Digest, number: int, certificate: bytes) -> None:
        async with self._writing:
            await self._change(lambda: self._chain(run).append(number, certificate))

    async def certificates(self, run: Digest, first: int, limit: int) -> list[bytes]:
        # The index must not change while it is read.
        async with self._writing:
            return await self._apart(lambda: self._read_certificates(run, first, limit))

    def _read_certificates(self, run: Digest, first: int, limit: int) -> list[bytes]:
        try:
            return self._chain(run).read(first, limit)
        except OSError as error:
            path = self._run(run) / CERTIFICATES
            self._found(
                f"The certificates cannot be read now ({error.strerror}). It is tried again: {path}"
            )
            raise self.damage(
                run, "The certificates of this run cannot be read.", f"{error.strerror}: {path}"
            ) from None

    def _chain(self, run: Digest) -> ChainFile:
        chain = self._chains.get(run)
        if chain is None:
            path = self._run(run) / CERTIFICATES
            chain = ChainFile(path, self._fault, self._found)
            if chain.damage:
                raise self.damage(
                    run,
                    f"The certificates of this run do not read back: {chain.damage}.",
                    str(path),
                )
            self._chains[run] = chain
        return chain

    # ------------------------------------------------------------------------------------------ proofs

    async def save_proof(self, run: Digest, proof: bytes) -> None:
        async with self._writing:
            await self._change(lambda: self._proofs(run).save(proof))

    async def proofs(self, run: Digest) -> list[Digest]:
        return await self._apart(self._proofs(run).names)

    async def load_proof(self, run: Digest, name: Digest) -> bytes | None:
        async with self._writing:  # a damaged one is renamed
            return await self._apart(lambda: self._proofs(run).read(name))

    def _proofs(self, run: Digest) -> ProofFiles:
        return ProofFiles(self._run(run) / "proofs", self._fault, self._found)

    # ------------------------------------------------------------------------------------------ where things are

    def damage(self, run: Digest, what: str, why: str = "") -> UserError:
        """The error for what cannot be read of a run; its advice is a command that works."""
        folder = self._run(run)
        rights = "let the user who runs this read it (chmod u+rwX, or chown), or "
        command = (
            f"hypergpud --home {shlex.quote(str(self._root))} repair {run.hex()[:SHOWN_DIGITS]}"
        )
        does = "sets aside what cannot be read and deletes nothing; the next start gets certificates and state from the run's members"
        return UserError(
            "DAMAGED",
            what,
            why=why or f"{folder / CERTIFICATES} and {folder / CHECKPOINTS} do not fit together",
            fix=f"{rights if os.strerror(errno.EACCES) in f'{what} {why}' else ''}{command}   ({does})",
        )

    def _run(self, run: Digest) -> Path:
        return self._root / "runs" / run.hex()

    def _checkpoints(self, run: Digest) -> Path:
        return self._run(run) / CHECKPOINTS

    def _ledger(self, run: Digest) -> Path:
        return self._run(run) / LEDGER

    def _kept(self, run: Digest) -> list[CheckpointEntry]:
        """Oldest first. Raises `UserError("DAMAGED")` where the folder cannot be read."""
        try:
            return checkpoints_in(self._checkpoints(run))
        except OSError as error:
            why = f"{error.strerror}: {self._checkpoints(run)}"
            raise self.damage(run, "The checkpoints of this run cannot be read.", why) from None

    def _checkpoints_of(self, tip: Digest) -> list[Path]:
        """The checkpoints of any run with that tip.

        None while the disk does not list its folders: members are sent elsewhere.
        """
        try:
            return list(self._root.glob(CHECKPOINT_OF.format(tip=tip.hex())))
        except OSError as error:
            self._found(
                f"The checkpoints cannot be listed now ({error.strerror}). Members who ask for one are sent elsewhere: {self._root}"
            )
            return []

    def _clear_drafts(self, run: Digest) -> None:
        """Before the first write into a run, not on opening: whoever only reads must not take a
        writer's draft away.
        """
        if run not in self._cleared:
            self._cleared.add(run)
            remove_drafts(self._run(run))
            remove_drafts(self._checkpoints(run))
