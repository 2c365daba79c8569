"""Keeps the checkpoints of all runs of a home: saves, prunes, finds and reads them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from daemon.disk.atomic import (
    FaultHook,
    disk_full,
    free_bytes,
    make_private_directory,
    sync_directory,
)
from daemon.disk.checkpoint_file import (
    CheckpointEntry,
    checkpoint_name,
    checkpoints_in,
    read_checkpoint,
    write_checkpoint,
)
from daemon.disk.checkpoint_keeping import KeepRules, KeptCheckpoint, removable
from daemon.disk.damage_reports import unreadable_run
from daemon.disk.open_state import OpenState, open_state
from daemon.disk.run_folder import CHECKPOINT_PATTERNS, RunFolder
from daemon.disk.tensors import DamagedFile, place_of
from protocol.digest import Digest
from protocol.ports.disk import DiskFull
from protocol.ports.disk_records import Checkpoint
from protocol.ports.offload import Offload

# A branch's folder has the name of its newest checkpoint: the number and 16 digits of the hash.
BRANCH_NAME_CHARS = 27


def _branches(folder: RunFolder) -> list[Path]:
    """Return the folders of left branches; an earlier release used one folder for all of them."""
    try:
        return [folder.abandoned, *(at for at in folder.abandoned.iterdir() if at.is_dir())]
    except FileNotFoundError:
        return []


class CheckpointStore:
    """The checkpoints of a home. Blocking; one thread at a time writes."""

    def __init__(
        self,
        home: Path,
        keep: KeepRules,
        fault: FaultHook,
        report: Callable[[str], None],
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Remove checkpoints only as `keep` says; `report` gets a sentence for each damage."""
        self._home, self._keep, self._fault, self._report = home, keep, fault, report
        self._clock_ns = clock_ns

    def save(self, checkpoint: Checkpoint, superseded: Collection[Digest]) -> int:
        """Write a checkpoint, then remove those that need not stay; return its size.

        A checkpoint of this folder that is not among the `superseded` ones always stays.
        """
        run = checkpoint.run
        path = RunFolder(self._home, run).checkpoints / checkpoint_name(
            checkpoint.number, checkpoint.tip
        )
        # The file system's dates have a coarse resolution and follow the clock's steps: two
        # branches of one number could change places.
        written_ns = max([self._clock_ns(), *(entry.written_ns + 1 for entry in self.entries(run))])
        try:
            size = write_checkpoint(path, checkpoint, self._fault, written_ns)
        except DiskFull:
            # Older checkpoints give way before a new one is refused.
            if not self._prune(run, path, superseded):
                raise
            size = write_checkpoint(path, checkpoint, self._fault, written_ns)
        self._prune(run, path, superseded)
        return size

    def _prune(self, run: Digest, newest: Path, superseded: Collection[Digest]) -> int:
        """Remove checkpoints of the current branch and of left ones, as the rules say.

        Returns how many were removed. What cannot be removed now is tried again by the next save.
        """
        folder, removed = RunFolder(self._home, run), 0
        current = [
            entry for entry in self.entries(run) if entry.path == newest or entry.tip in superseded
        ]
        files: dict[KeptCheckpoint, CheckpointEntry] = {}
        with suppress(OSError):
            left = [(str(at), checkpoints_in(at)) for at in _branches(folder)]
            for branch, entries in [("", current), *left]:
                for entry in entries:
                    files[
                        KeptCheckpoint(
                            branch=branch,
                            number=entry.number,
                            written_ns=entry.written_ns,
                            size_bytes=entry.path.stat().st_size,
                        )
                    ] = entry
            free = free_bytes(folder.checkpoints)
            for gone in removable(list(files), self._clock_ns(), self._keep, free):
                self._fault("remove")
                files[gone].path.unlink(missing_ok=True)
                removed += 1
        return removed

    def abandon(self, run: Digest, tips: Collection[Digest]) -> int:
        """Move the checkpoints of a branch that was left out of the way. Raises `DiskFull`.

        Returns 0: renaming writes no bytes of a file.
        """
        folder = RunFolder(self._home, run)
        left = [entry for entry in self.entries(run) if entry.tip in tips]
        if not left:
            return 0
        branch = folder.abandoned / left[-1].path.stem[:BRANCH_NAME_CHARS]
        try:
            make_private_directory(branch)
            for entry in left:
                self._fault("rename")
                entry.path.rename(branch / entry.path.name)
            sync_directory(branch)
            sync_directory(folder.checkpoints)
        except OSError as error:
            raise disk_full(folder.abandoned, 0, error) from error
        return 0

    def entries(self, run: Digest) -> list[CheckpointEntry]:
        """Return the run's checkpoints, oldest first.

        Raises `UserError("DAMAGED")` where the folder cannot be read.
        """
        folder = RunFolder(self._home, run).checkpoints
        try:
            return checkpoints_in(folder)
        except OSError as error:
            what = "The checkpoints of this run cannot be read."
            raise unreadable_run(self._home, run, what, f"{error.strerror}: {folder}") from None

    def load(self, run: Digest) -> Checkpoint | None:
        """Return the newest checkpoint that can be read, or None where there is no checkpoint.

        Raises `UserError("DAMAGED")` where there are checkpoints, and all are damaged.
        """
        damaged: list[tuple[CheckpointEntry, DamagedFile]] = []
        found: Checkpoint | None = None
        for entry in reversed(self.entries(run)):
            try:
                found = read_checkpoint(entry.path, run, entry.tip, entry.number)
                break
            except FileNotFoundError:
                # Another process removed it meanwhile, so a newer one exists.
                continue
            except DamagedFile as error:
                damaged.append((entry, error))
        if damaged and found is None:
            newest, reason = damaged[0]
            raise unreadable_run(
                self._home,
                run,
                f"No checkpoint of this run can be read; the newest, number {newest.number},"
                f" {reason}.",
                str(newest.path),
            )
        for entry, reason in damaged:
            number = found.number if found else 0
            self._report(
                f"Checkpoint {entry.number} {reason}. Number {number} is used instead; later"
                f" checkpoints replace the damaged file: {entry.path}"
            )
        return found

    def open_state(self, tip: Digest, offload: Offload) -> OpenState | None:
        """Open the state with this tip for reading; None where this home cannot serve it."""
        for path in self._paths_of(tip):
            try:
                return open_state(path, offload)
            except DamagedFile as error:
                self._report_unserved(path, error)
            except OSError:
                continue
        return None

    def read_state(self, tip: Digest, offset: int, size: int) -> bytes | None:
        """Return up to `size` bytes of the state with this tip; None where it cannot be read."""
        if offset < 0 or size < 0:
            raise ValueError(f"no {size} bytes at {offset}")
        for path in self._paths_of(tip):
            try:
                handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                start, stop = place_of(handle, ("anchor", "momentum"))
                return os.pread(handle, max(0, min(size, stop - start - offset)), start + offset)
            except (DamagedFile, OSError) as error:
                self._report_unserved(path, error)
            finally:
                os.close(handle)
        return None

    def _report_unserved(self, path: Path, error: Exception) -> None:
        self._report(
            f"A checkpoint {error}. Members who ask for it are sent elsewhere; later checkpoints"
            f" replace it: {path}"
        )

    def _paths_of(self, tip: Digest) -> list[Path]:
        """Return the checkpoints of any run with that tip; none while they cannot be listed."""
        try:
            return [
                path
                for pattern in CHECKPOINT_PATTERNS
                for path in self._home.glob(pattern.format(tip=tip.hex()))
            ]
        except OSError as error:
            self._report(
                f"The checkpoints cannot be listed now ({error.strerror}). Members who ask for one"
                f" are sent elsewhere: {self._home}"
            )
            return []
