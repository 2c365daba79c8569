"""Reads a model of a run from a home: the newest one, or that of one certificate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from daemon.chain.home_runs import HomeRun, certificates_on_disk, run_folder
from daemon.disk.atomic import no_fault
from daemon.disk.checkpoint_file import CheckpointEntry, checkpoints_in, read_checkpoint
from daemon.disk.result_files import ResultFiles
from daemon.disk.run_folder import CHECKPOINTS, RESULTS
from daemon.disk.tensors import DamagedFile
from protocol.averaging.encoded_mean import EncodedMean, MeanPieces, pieces_of
from protocol.averaging.replay import is_merge, replay
from protocol.certificates.certificate import OpenCertificate
from protocol.certificates.next_tip import extend
from protocol.certificates.tip import Tip, decode_tip
from protocol.codec import codec_named
from protocol.digest import SHOWN_DIGITS, Digest, merkle_root
from protocol.errors import PeerFault, UserError
from protocol.ports.disk_records import Checkpoint
from protocol.rules.registry import rules_of
from protocol.run.manifest import SignedManifest
from protocol.run.schedule import outer_at

Say = Callable[[str], None]
Shapes = tuple[tuple[str, tuple[int, ...]], ...]


class RunModel(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of one certificate.

    `parameters` is a float32 vector of shape (parameters,). `shapes` names its tensors in order,
    and is empty where a home does not know them. At genesis, `tip` is the run id.
    """

    signed: SignedManifest
    number: int
    tip: Digest
    parameters: Any
    shapes: Shapes = ()


def model_of_home(
    home: Path, signed: SignedManifest, certificate: str | None, say: Say
) -> RunModel:
    """Return the newest whole checkpoint's model, or that of a certificate.

    Reads the home and changes nothing there, so a node may run on it. `say` gets a sentence for
    each damaged checkpoint.

    Args:
        home: the home.
        signed: the run.
        certificate: the number of a certificate, or the beginning of its hash; None for the newest
            checkpoint.
        say: prints a message.

    Raises:
        UserError: "NO_CHECKPOINT" where no checkpoint can be read, "CERTIFICATE" for a certificate
            whose model this home cannot rebuild.
    """
    if certificate is None:
        found = newest_checkpoint(home, signed, say)
        return RunModel(
            signed=signed,
            number=found.number,
            tip=found.tip,
            parameters=found.anchor,
            shapes=found.shapes,
        )
    return _Rebuild(home, signed, say).model(certificate)


def newest_checkpoint(home: Path, signed: SignedManifest, say: Say) -> Checkpoint:
    """Return the newest whole checkpoint of a run. `say` gets a sentence for each damaged one.

    Raises:
        UserError: "NO_CHECKPOINT" where no checkpoint can be read.
    """
    folder = run_folder(home, signed.run) / CHECKPOINTS
    reasons: list[str] = []
    try:
        for entry in reversed(checkpoints_in(folder)):
            try:
                checkpoint = read_checkpoint(entry.path, signed.run, entry.tip, entry.number)
            except FileNotFoundError:
                # A running daemon removed it, so a newer one exists.
                continue
            except DamagedFile as error:
                reasons.append(f"Checkpoint {entry.number} {error}: {entry.path}")
                continue
            for reason in reasons:
                say(f"{reason}. Number {checkpoint.number} is used instead.")
            return checkpoint
    except OSError as error:
        reasons.append(f"{folder} cannot be read ({error.strerror})")
    shown = signed.run.hex()[:SHOWN_DIGITS]
    raise UserError(
        "NO_CHECKPOINT",
        f"The run {signed.open().name} ({shown}) has no checkpoint.",
        why="; ".join(reasons) or f"{folder} holds none",
        fix=""
        if reasons
        else f"hypergpud start --run {shown}   (the first certified round writes one)",
    )


def is_named(number: int, name: Digest, wanted: str) -> bool:
    """Return whether `wanted` names a certificate: its number, or the beginning of its hash."""
    return str(number) == wanted or (len(wanted) >= 4 and name.hex().startswith(wanted.lower()))


class _Rebuild:
    """The models that a home can make from its checkpoints and the results on its disk."""

    def __init__(self, home: Path, signed: SignedManifest, say: Say) -> None:
        self._signed, self._manifest = signed, signed.open()
        self._folder = run_folder(home, signed.run)
        run = HomeRun(run=signed.run, manifest=self._manifest)
        self._certificates = certificates_on_disk(home, run, say)
        self._checkpoints = {
            entry.tip: entry for entry in checkpoints_in(self._folder / CHECKPOINTS)
        }

    def model(self, wanted: str) -> RunModel:
        for entry in reversed(self._checkpoints.values()):
            if is_named(entry.number, entry.tip, wanted):
                return self._made(self._read(entry, wanted), entry.tip, entry.number)
        found = [
            certificate
            for certificate in self._certificates
            if is_named(certificate.outcome.number, certificate.hash, wanted)
        ]
        if not found:
            raise self._unable(wanted, "no certificate of this run has that number or hash")
        path: list[OpenCertificate] = []
        by_hash = {certificate.hash: certificate for certificate in self._certificates}
        step: OpenCertificate | None = found[-1]
        while step is not None and not is_merge(step):
            path.insert(0, step)
            parent = step.outcome.parents[0]
            if parent in self._checkpoints:
                return self._replayed(self._read(self._checkpoints[parent], wanted), path, wanted)
            step = by_hash.get(parent)
        raise self._unable(wanted, "no checkpoint before it is on this disk")

    def _read(self, entry: CheckpointEntry, wanted: str) -> Checkpoint:
        try:
            return read_checkpoint(entry.path, self._signed.run, entry.tip, entry.number)
        except (DamagedFile, OSError) as error:
            raise self._unable(wanted, f"checkpoint {entry.number} {error}") from None

    def _replayed(
        self, checkpoint: Checkpoint, path: list[OpenCertificate], wanted: str
    ) -> RunModel:
        tip: Tip | None = decode_tip(checkpoint.stood)
        if tip is None:
            raise self._unable(wanted, f"checkpoint {checkpoint.number} is of an earlier release")
        state = (checkpoint.anchor.copy(), checkpoint.momentum.copy())
        for certificate in path:
            mean = self._mean(certificate, wanted, state[0].size)
            outer = outer_at(self._manifest, tip.samples)
            try:
                leaves = replay(
                    state, certificate, mean, rules=rules_of(self._manifest), outer=outer
                )
                tip = extend(tip, certificate, trusted=True)
            except PeerFault as fault:
                raise self._unable(wanted, str(fault)) from None
            if merkle_root(leaves) != certificate.outcome.state:
                number = certificate.outcome.number
                raise self._unable(wanted, f"the results of round {number} do not lead to it")
        made = msgspec.structs.replace(checkpoint, anchor=state[0])
        return self._made(made, tip.hash, tip.number)

    def _mean(self, certificate: OpenCertificate, wanted: str, parameters: int) -> EncodedMean:
        number, codec = certificate.outcome.number, codec_named(self._manifest.codec).result
        data = ResultFiles(self._folder / RESULTS, no_fault).read(
            certificate.outcome.state, 0, None
        )
        if data is None or len(data) != codec.size(parameters):
            raise self._unable(wanted, f"the results of round {number} are not on this disk")
        mean, pieces = (
            EncodedMean(codec, [(0, data)]),
            MeanPieces(certificate.plan.layout, codec, parameters),
        )
        if pieces.root(pieces_of(mean, pieces)) != certificate.outcome.result:
            raise self._unable(wanted, f"the results of round {number} are damaged")
        return mean

    def _made(self, checkpoint: Checkpoint, tip: Digest, number: int) -> RunModel:
        return RunModel(
            signed=self._signed,
            number=number,
            tip=tip,
            parameters=np.asarray(checkpoint.anchor),
            shapes=checkpoint.shapes,
        )

    def _unable(self, wanted: str, why: str) -> UserError:
        kept = ", ".join(str(entry.number) for entry in self._checkpoints.values())
        return UserError(
            "CERTIFICATE",
            f"This home cannot rebuild the model of certificate {wanted}.",
            why=f"{why}; it has full states of {kept or 'none'}",
            fix="name one of these numbers, or ask the swarm: --join MULTIADDR",
            exit_code=2,
        )
