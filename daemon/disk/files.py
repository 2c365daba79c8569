"""`FileDisk`: the port `Disk` over a directory.

    <root>/runs/<run>/checkpoints/<number>-<tip>.safetensors    see `checkpoint_file`; the last few
    <root>/runs/<run>/ledger.safetensors                        see `ledger_file`
    <root>/runs/<run>/stands                                    see `slots_file`
    <root>/runs/<run>/certificates                              see `chain_file`
    <root>/runs/<run>/proofs/                                   see `proof_files`

All of it is private to its owner (files 0600, directories 0700). One process writes; others may read at the same time.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import trio

from daemon.disk.atomic import FaultHook, no_fault, remove_drafts
from daemon.disk.chain_file import ChainFile
from daemon.disk.checkpoint_file import read_checkpoint, write_checkpoint
from daemon.disk.damage import Damage, Report
from daemon.disk.ledger_file import read_ledger, write_ledger
from daemon.disk.proof_files import ProofFiles
from daemon.disk.slots_file import SlotsFile
from daemon.disk.tensors import Damaged, place_of
from daemon.pinned import PinnedDirectory
from protocol.digest import Digest
from protocol.ports import Checkpoint, DiskFull, LedgerRecord, Offload, Stand

KEPT = 3  # the newest may be found damaged, and a joining node may still be reading the one before
_NAME = re.compile(r"(\d{10,20})-([0-9a-f]{64})\.safetensors")


class _Kept(msgspec.Struct, frozen=True, order=True):
    """A checkpoint on disk; the greatest is the newest. Two of one number are branches: the one written last counts."""

    number: int
    written_ns: int
    path: Path
    tip: Digest


class FileDisk:
    """Satisfies `ports.Disk`. `damaged` lists, in words, what was found damaged since the start."""

    def __init__(
        self, root: Path, offload: Offload, keep: int = KEPT, fault: FaultHook = no_fault, report: Report = lambda _: None
    ) -> None:
        """`report` hears each of `damaged` once."""
        if keep < 1:
            raise ValueError("at least one checkpoint is kept")
        damage = Damage(offload, report)
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
        """`work`, which writes. Raises `DiskFull` where the root was removed or replaced since the first write: nothing makes it anew."""

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

    async def save_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Also removes checkpoints with a higher number (a branch that was left) and all but the last few."""
        async with self._writing:
            await self._change(lambda: self._save_checkpoint(checkpoint))

    def _save_checkpoint(self, checkpoint: Checkpoint) -> None:
        self._clear_drafts(checkpoint.run)
        path = self._checkpoints(checkpoint.run) / f"{checkpoint.number:010d}-{checkpoint.tip.hex()}.safetensors"
        # The file system's own dates have the clock's steps and a tick's resolution: two branches of one number could change places.
        written_ns = max([time.time_ns(), *(entry.written_ns + 1 for entry in self._kept(checkpoint.run))])
        write_checkpoint(path, checkpoint, self._fault, written_ns)
        kept = self._kept(checkpoint.run)
        left = [entry for entry in kept if entry.number > checkpoint.number]
        old = [entry for entry in kept if entry.number <= checkpoint.number and entry.path != path]
        for entry in left + old[: max(0, len(old) - (self._keep - 1))]:
            self._fault("remove")
            with suppress(OSError):  # the new one is safe; what cannot be removed now is tried again after the next
                entry.path.unlink(missing_ok=True)

    async def load_checkpoint(self, run: Digest) -> Checkpoint | None:
        return await self._apart(lambda: self._load_checkpoint(run))

    def _load_checkpoint(self, run: Digest) -> Checkpoint | None:
        damaged: list[tuple[_Kept, Damaged]] = []
        whole: Checkpoint | None = None
        for entry in reversed(self._kept(run)):
            try:
                whole = read_checkpoint(entry.path, run, entry.tip, entry.number)
                break
            except FileNotFoundError:
                continue  # removed while we looked: there is a newer one
            except Damaged as error:
                damaged.append((entry, error))
        then = f"Number {whole.number} is taken instead" if whole else "No other is whole, so none is taken"
        for entry, error in damaged:
            self._found(f"Checkpoint {entry.number} {error}. {then}; the next ones push the damaged file out: {entry.path}")
        return whole

    async def read_state(self, tip: Digest, offset: int, size: int) -> bytes | None:
        return await self._apart(lambda: self._read_state(tip, offset, size))

    def _read_state(self, tip: Digest, offset: int, size: int) -> bytes | None:
        if offset < 0 or size < 0:
            raise ValueError(f"no {size} bytes at {offset}")
        for path in self._root.glob(f"runs/*/checkpoints/*-{tip.hex()}.safetensors"):
            try:
                handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                start, stop = place_of(handle, ("anchor", "momentum"))
                return os.pread(handle, max(0, min(size, stop - start - offset)), start + offset)
            except (Damaged, OSError) as error:
                self._found(f"A checkpoint {error}. Members who ask for it are sent elsewhere; the next ones push it out: {path}")
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
        except Damaged as error:
            self._found(
                f"The ledger {error}. Work that waited in it for a round is lost; a new one is written over it: {self._ledger(run)}"
            )
            return None

    # ------------------------------------------------------------------------------------------ stands

    async def save_stands(self, run: Digest, stands: Sequence[Stand]) -> None:
        body = msgspec.msgpack.encode(tuple(stands))
        async with self._quick:  # not behind a checkpoint on its way, which takes seconds and is another file
            slots = await self._apart(lambda: self._stands(run))
            if slots.exists:
                await self._change(lambda: slots.write(body))
                return
            async with self._writing:  # made as a draft, which others clear away
                await self._change(lambda: self._first_stands(run, slots, body))

    def _first_stands(self, run: Digest, slots: SlotsFile, body: bytes) -> None:
        self._clear_drafts(run)
        slots.write(body)

    async def load_stands(self, run: Digest) -> list[Stand]:
        async with self._quick:
            slots = await self._apart(lambda: self._stands(run))
        return msgspec.msgpack.decode(slots.body, type=list[Stand]) if slots.body else []

    def _stands(self, run: Digest) -> SlotsFile:
        slots = self._slots.get(run)
        if slots is None:
            slots = self._slots[run] = SlotsFile(self._run(run) / "stands", self._fault, self._found)
        return slots

    # ------------------------------------------------------------------------------------------ certificates

    async def append_certificate(self, run: Digest, number: int, certificate: bytes) -> None:
        async with self._writing:
            await self._change(lambda: self._chain(run).append(number, certificate))

    async def certificates(self, run: Digest, first: int, limit: int) -> list[bytes]:
        async with self._writing:  # the index must not change while it is read
            return await self._apart(lambda: self._chain(run).read(first, limit))

    def _chain(self, run: Digest) -> ChainFile:
        chain = self._chains.get(run)
        if chain is None:
            chain = self._chains[run] = ChainFile(self._run(run) / "certificates", self._fault, self._found)
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

    def _run(self, run: Digest) -> Path:
        return self._root / "runs" / run.hex()

    def _checkpoints(self, run: Digest) -> Path:
        return self._run(run) / "checkpoints"

    def _ledger(self, run: Digest) -> Path:
        return self._run(run) / "ledger.safetensors"

    def _kept(self, run: Digest) -> list[_Kept]:
        """Oldest first."""
        kept = []
        for path in self._checkpoints(run).glob("*.safetensors"):
            name = _NAME.fullmatch(path.name)
            try:
                if name:
                    kept.append(_Kept(int(name[1]), path.stat().st_mtime_ns, path, bytes.fromhex(name[2])))
            except FileNotFoundError:
                continue
        return sorted(kept)

    def _clear_drafts(self, run: Digest) -> None:
        """Before the first write into a run, not on opening: whoever only reads must not take a writer's draft away."""
        if run not in self._cleared:
            self._cleared.add(run)
            remove_drafts(self._run(run))
            remove_drafts(self._checkpoints(run))
