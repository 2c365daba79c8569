"""Implements the port `Disk` over a home directory.

`run_folder` shows where the files are. All of them are private to their owner: files have mode
0600, directories 0700. One process writes; other processes may read at the same time.

A file that cannot be read is neither removed nor overwritten. Where a node cannot go on without the
file, reading raises `UserError("DAMAGED")`, which names the file and the command that sets it aside
(`daemon/home/run_repair.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import msgspec
import trio

from daemon.disk.atomic import FaultHook, no_fault, remove_drafts, set_aside
from daemon.disk.chain_file import ChainFile
from daemon.disk.checkpoint_keeping import KeepRules
from daemon.disk.checkpoint_store import CheckpointStore
from daemon.disk.damage_reports import DamageReports, ReportDamage, unreadable_run
from daemon.disk.ledger_file import read_ledger, write_ledger
from daemon.disk.open_state import OpenState
from daemon.disk.proof_files import ProofFiles
from daemon.disk.result_files import ResultFiles
from daemon.disk.run_folder import RunFolder
from daemon.disk.slot_records import SlotRecords
from daemon.disk.slots_file import SLOT_BYTES, SlotsFile
from daemon.disk.tensors import DamagedFile, UnreadableFile
from daemon.home.pinned_directory import PinnedDirectory
from protocol.digest import Buffer, Digest
from protocol.errors import UserError
from protocol.ports.disk import DiskFull
from protocol.ports.disk_records import (
    Checkpoint,
    HeldCertificate,
    LedgerMark,
    LedgerRecord,
    ViewRecord,
)
from protocol.ports.offload import Offload


class FileDisk:
    """Satisfies `Disk`. `damaged` lists the reports of damage since the start."""

    def __init__(
        self,
        root: Path,
        offload: Offload,
        keep: KeepRules | None = None,
        fault: FaultHook = no_fault,
        report: ReportDamage = lambda _: None,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """`keep` says which checkpoints stay; `report` gets each report of damage once."""
        self._damage = DamageReports(offload, report)
        self.damaged, self._run = self._damage.reported, self._damage.run
        self._root, self._fault = root, fault
        self._checkpoints = CheckpointStore(
            root, keep or KeepRules(), fault, self._damage.add, clock_ns
        )
        # The home at the first write. Set once.
        self._pinned: PinnedDirectory | None = None
        self._writing = trio.Lock()
        self._saving_slots = trio.Lock()
        self._chains: dict[Digest, ChainFile] = {}
        self._slots = SlotRecords(root, fault, self._damage)
        self._written_bytes = 0
        # The runs whose drafts were removed.
        self._cleared: set[Digest] = set()

    async def save_checkpoint(
        self, checkpoint: Checkpoint, superseded: Collection[Digest] = ()
    ) -> None:
        def save() -> int:
            self._clear_drafts(checkpoint.run)
            return self._checkpoints.save(checkpoint, superseded)

        async with self._writing:
            await self._write(save)

    async def leave_checkpoints(self, run: Digest, tips: Collection[Digest]) -> None:
        async with self._writing:
            await self._write(lambda: self._checkpoints.abandon(run, tips))

    async def checkpoints(self, run: Digest) -> list[tuple[int, Digest]]:
        entries = await self._run(lambda: self._checkpoints.entries(run))
        return [(entry.number, entry.tip) for entry in entries]

    async def load_checkpoint(self, run: Digest) -> Checkpoint | None:
        return await self._run(lambda: self._checkpoints.load(run))

    async def open_state(self, tip: Digest) -> OpenState | None:
        return await self._run(lambda: self._checkpoints.open_state(tip, self._run))

    async def read_state(self, tip: Digest, offset: int, size: int) -> bytes | None:
        return await self._run(lambda: self._checkpoints.read_state(tip, offset, size))

    async def save_ledger(self, record: LedgerRecord) -> None:
        def save() -> int:
            self._clear_drafts(record.run)
            return write_ledger(RunFolder(self._root, record.run).ledger, record, self._fault)

        async with self._writing:
            await self._write(save)

    async def load_ledger(self, run: Digest) -> LedgerRecord | None:
        return await self._run(lambda: self._load_ledger(run))

    def _load_ledger(self, run: Digest) -> LedgerRecord | None:
        path = RunFolder(self._root, run).ledger
        try:
            return read_ledger(path, run)
        except FileNotFoundError:
            return None
        except UnreadableFile as error:
            raise self.damage(
                run, f"The ledger {error}.", f"it may hold work that waits for a round: {path}"
            ) from None
        except DamagedFile as error:
            aside = set_aside(path)
            self._damage.add(
                f"The ledger {error}. Work that waited in it for a round is lost; the damaged file"
                f" was set aside: {aside}"
            )
            return None

    async def save_mark(self, run: Digest, mark: LedgerMark) -> None:
        await self._save_slot(run, lambda: self._slots.mark(run), msgspec.msgpack.encode(mark))

    async def load_mark(self, run: Digest) -> LedgerMark | None:
        async with self._saving_slots:
            return await self._run(lambda: self._slots.load_mark(run))

    async def save_view_records(self, run: Digest, records: Sequence[ViewRecord]) -> None:
        body = msgspec.msgpack.encode(tuple(records))
        await self._save_slot(run, lambda: self._slots.views(run), body)

    async def load_view_records(self, run: Digest) -> list[ViewRecord]:
        async with self._saving_slots:
            return await self._run(lambda: self._slots.load_views(run))

    async def save_held(self, run: Digest, held: Sequence[HeldCertificate]) -> None:
        body = msgspec.msgpack.encode(tuple(held))
        await self._save_slot(run, lambda: self._slots.held(run), body)

    async def load_held(self, run: Digest) -> list[HeldCertificate]:
        async with self._saving_slots:
            return await self._run(lambda: self._slots.load_held(run))

    async def _save_slot(
        self, run: Digest, open_slots: Callable[[], SlotsFile], body: bytes
    ) -> None:
        # A lock of its own: a checkpoint takes seconds to write, and is another file.
        async with self._saving_slots:
            slots = await self._run(open_slots)

            def write() -> int:
                slots.write(body)
                return SLOT_BYTES

            if slots.exists:
                await self._write(write)
                return

            def create() -> int:
                self._clear_drafts(run)
                return write()

            # The first write makes a draft, which another writer could clear away.
            async with self._writing:
                await self._write(create)

    async def save_results(
        self, run: Digest, number: int, state: Digest, parts: Sequence[Buffer]
    ) -> None:
        def save() -> int:
            self._clear_drafts(run)
            return self._results(run).save(number, state, parts)

        async with self._writing:
            await self._write(save)

    async def read_results(
        self, run: Digest, state: Digest, offset: int = 0, size: int | None = None
    ) -> bytes | None:
        return await self._run(lambda: self._results(run).read(state, offset, size))

    async def drop_results(self, run: Digest, number: int) -> None:
        async with self._writing:
            await self._run(lambda: self._results(run).drop(number))

    def _results(self, run: Digest) -> ResultFiles:
        return ResultFiles(RunFolder(self._root, run).results, self._fault)

    async def append_certificate(self, run: Digest, number: int, certificate: bytes) -> None:
        async with self._writing:
            await self._write(lambda: self._chain(run).append(number, certificate))

    async def certificates(self, run: Digest, first: int, limit: int) -> list[bytes]:
        # The index must not change while it is read.
        async with self._writing:
            return await self._run(lambda: self._read_certificates(run, first, limit))

    def _read_certificates(self, run: Digest, first: int, limit: int) -> list[bytes]:
        try:
            return self._chain(run).read(first, limit)
        except OSError as error:
            path = RunFolder(self._root, run).certificates
            self._damage.add(
                f"The certificates cannot be read now ({error.strerror}). It is tried again: {path}"
            )
            raise self.damage(
                run, "The certificates of this run cannot be read.", f"{error.strerror}: {path}"
            ) from None

    def _chain(self, run: Digest) -> ChainFile:
        chain = self._chains.get(run)
        if chain is None:
            path = RunFolder(self._root, run).certificates
            chain = ChainFile(path, self._fault, self._damage.add)
            if chain.damage:
                what = f"The certificates of this run do not read back: {chain.damage}."
                raise self.damage(run, what, str(path))
            self._chains[run] = chain
        return chain

    async def save_proof(self, run: Digest, proof: bytes) -> None:
        async with self._writing:
            await self._write(lambda: self._proofs(run).save(proof))

    async def proofs(self, run: Digest) -> list[Digest]:
        return await self._run(self._proofs(run).names)

    async def load_proof(self, run: Digest, name: Digest) -> bytes | None:
        # Reading renames a damaged proof.
        async with self._writing:
            return await self._run(lambda: self._proofs(run).read(name))

    def _proofs(self, run: Digest) -> ProofFiles:
        return ProofFiles(RunFolder(self._root, run).proofs, self._fault, self._damage.add)

    def damage(self, run: Digest, what: str, why: str = "") -> UserError:
        """Return the error for a run that cannot be read; its advice is a command that works."""
        folder = RunFolder(self._root, run)
        default = f"{folder.certificates} and {folder.checkpoints} do not fit together"
        return unreadable_run(self._root, run, what, why or default)

    @property
    def written_bytes(self) -> int:
        return self._written_bytes

    async def _write(self, work: Callable[[], int]) -> None:
        """Run `work`, which writes and returns how many bytes it wrote.

        Raises `DiskFull` where the home was removed or replaced since the first write. Writing
        would make a new home without a key.
        """

        def check_then_work() -> int:
            try:
                if self._pinned is None and self._root.is_dir():
                    self._pinned = PinnedDirectory(self._root)
                if self._pinned is not None:
                    self._pinned.check()
            except OSError as gone:
                raise DiskFull(f"{self._root} was removed or replaced: {gone.strerror}") from gone
            return work()

        self._written_bytes += await self._run(check_then_work)

    def _clear_drafts(self, run: Digest) -> None:
        """Remove drafts of an earlier process, before the first write into a run.

        Not on opening: a process that only reads must not remove the writer's draft.
        """
        if run not in self._cleared:
            self._cleared.add(run)
            folder = RunFolder(self._root, run)
            remove_drafts(folder.path)
            remove_drafts(folder.checkpoints)
            remove_drafts(folder.results)
