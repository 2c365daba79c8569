"""Writes a home with certified rounds: real certificates, and checkpoints with their states."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
from msgspec.structs import replace

from daemon.chain.home_runs import keep_manifest, run_folder
from daemon.disk.file_disk import FileDisk
from daemon.home.recent_state import save_recent_state
from daemon.swarm.chain_sync import pack_record
from protocol.averaging.outer_step import state_digest
from protocol.averaging.vector_layout import CHUNK_ELEMENTS, Vector
from protocol.certificates.certificate import open_certificate
from protocol.certificates.next_tip import extend
from protocol.certificates.tip import Tip, encode_tip, genesis
from protocol.ports.disk_records import Checkpoint, LedgerRecord, ViewRecord
from protocol.ports.offload import inline
from protocol.run.manifest import SignedManifest, seal
from tests.protocol.rounds import CHUNKS, MANIFEST, Made, people

FOUR = people(4)
PARAMETERS = CHUNKS * CHUNK_ELEMENTS
SHAPES = (("embedding", (PARAMETERS // 64, 32)), ("head.weight", (PARAMETERS // 2,)))


def vector(number: int, salt: int) -> Vector:
    return np.random.default_rng((number, salt)).standard_normal(PARAMETERS, np.float32)


class CertifiedHome:
    """A home with `rounds` certificates of four members, and the last three checkpoints."""

    def __init__(self, root: Path, rounds: int = 9, signed: SignedManifest | None = None) -> None:
        self.root = root
        self.signed = signed or seal(MANIFEST)
        self.run, self.manifest = self.signed.run, self.signed.open()
        self.folder = run_folder(root, self.run)
        self.rounds = rounds
        self.tips: list[Tip] = [genesis(self.run)]
        # The encoded certificates.
        self.raws: list[bytes] = []

    async def write(self) -> CertifiedHome:
        keep_manifest(self.root, self.signed)
        save_recent_state(self.root, self.signed, 4001)
        disk = FileDisk(self.root, inline)
        for number in range(1, self.rounds + 1):
            await self.append(disk, number)
            await disk.save_ledger(self.ledger(number))
            await disk.save_checkpoint(
                self.checkpoint(number), [tip.hash for tip in self.tips[:-1]]
            )
        await disk.save_view_records(self.run, [ViewRecord(parent=self.tips[-1].hash, view=1)])
        return self

    async def append(self, disk: FileDisk, number: int) -> None:
        made = Made(FOUR, self.tips[-1], seq=number, run=self.run, manifest=self.manifest)
        made.vote = replace(made.vote, state=state_digest(vector(number, 0), vector(number, 1)))
        raw = made.raw()
        self.raws.append(raw)
        self.tips.append(
            extend(self.tips[-1], open_certificate(raw, self.run, self.manifest, CHUNKS))
        )
        await disk.append_certificate(self.run, number, pack_record([raw]))

    def checkpoint(self, number: int) -> Checkpoint:
        return Checkpoint(
            run=self.run,
            tip=self.tips[number].hash,
            number=number,
            anchor=vector(number, 0),
            momentum=vector(number, 1),
            inner=vector(number, 2),
            shapes=SHAPES,
            stood=encode_tip(self.tips[number]),
            task=self.manifest.task,
            task_options=msgspec.json.encode(self.manifest.task_options).decode(),
        )

    def ledger(self, number: int) -> LedgerRecord:
        return LedgerRecord(
            run=self.run,
            tip=self.tips[number].hash,
            next_seq=number + 1,
            weight=7,
            carried=0,
            offered_seq=0,
            offered_weight=0,
            offered_digest=bytes(32),
            offered=b"",
            residue=vector(number, 3),
        )

    @property
    def checkpoints(self) -> list[Path]:
        return sorted((self.folder / "checkpoints").glob("*.safetensors"))


def everything_in(folder: Path) -> dict[str, bytes]:
    """Return the content of each file by its path inside `folder`."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
