"""`export` and `repair`: what they print, what they write, and what they leave unchanged."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import trio
from safetensors import safe_open

from daemon.home.layout import ensure_home
from daemon.home.lock import home_lock
from daemon.home.node_key import load_or_make_key
from protocol.run.manifest import SignedManifest
from tests.daemon.certified_home import PARAMETERS, SHAPES, CertifiedHome, everything_in, vector
from tests.daemon.cli.conftest import Hypergpud
from tests.protocol.rounds import MANIFEST
from tests.protocol.rules.test_versions import of_the_first_rules

pytestmark = pytest.mark.real
ROUNDS = 5


def certified(home: Path, signed: SignedManifest | None = None) -> CertifiedHome:
    ensure_home(home)
    # A start with a new key would set the ledger of the old key aside.
    load_or_make_key(home)
    made = CertifiedHome(home, ROUNDS, signed)
    trio.run(made.write)
    return made


def test_export_writes_named_tensors_and_overwrites_only_with_force(
    hypergpud: Hypergpud, home: Path, tmp_path: Path
) -> None:
    made, file = certified(home), tmp_path / "model.safetensors"
    before = everything_in(home)
    done = hypergpud("export", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        f"Wrote {file}: {PARAMETERS:,} parameters of the run tests"
        f" ({made.run.hex()[:12]}, rules 3), as of round {ROUNDS}.\n"
    )
    tensors = safetensors.numpy.load_file(file)
    assert {name: tensor.shape for name, tensor in tensors.items()} == dict(SHAPES)
    assert np.array_equal(
        np.concatenate([tensors[name].ravel() for name, _ in SHAPES]), vector(ROUNDS, 0)
    )
    with safe_open(file, framework="np") as opened:
        metadata = opened.metadata()
    assert metadata["run"] == made.run.hex()
    assert (metadata["name"], metadata["task"], metadata["rules"], metadata["round"]) == (
        "tests",
        "nothing",
        "3",
        "5",
    )
    again = hypergpud("export", str(file))
    assert again.returncode == 2
    assert "exists already" in again.stderr
    assert "--force" in again.stderr
    file.write_bytes(b"old")
    assert hypergpud("export", made.run.hex()[:8], str(file), "--force").returncode == 0
    assert safetensors.numpy.load_file(file).keys() == tensors.keys()
    result = json.loads(hypergpud("export", str(file), "--force", "--json").stdout)
    assert result == {
        "file": str(file),
        "run": made.run.hex(),
        "rules": 3,
        "round": ROUNDS,
        "parameters": PARAMETERS,
    }
    assert everything_in(home) == before, "export only reads the home"


def test_run_of_the_first_rules_can_be_exported_but_not_started(
    hypergpud: Hypergpud, home: Path, tmp_path: Path
) -> None:
    made, file = certified(home, of_the_first_rules(MANIFEST)), tmp_path / "model.safetensors"
    before = everything_in(made.folder)
    shown = made.run.hex()[:12]
    for arguments in (("start",), ("start", "--run", shown), ("repair",)):
        done = hypergpud(*arguments)
        assert done.returncode == 2
        assert (
            "This run uses rules 1; this program knows rules 2, 3 and 4. This program only reads"
            " such a run. [RULES]" in done.stderr
        )
        assert f"hypergpud export {shown} model.safetensors" in done.stderr
    done = hypergpud("export", shown, str(file))
    assert done.returncode == 0, done.stderr
    assert "rules 1" in done.stdout
    assert np.array_equal(
        np.concatenate([each.ravel() for each in safetensors.numpy.load_file(file).values()]),
        vector(ROUNDS, 0),
    )
    assert everything_in(made.folder) == before


def test_export_of_a_checkpoint_without_shapes_is_one_vector(
    hypergpud: Hypergpud, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.daemon.certified_home.SHAPES", ())
    certified(home)
    file = tmp_path / "model.safetensors"
    assert hypergpud("export", str(file)).returncode == 0
    assert {name: tensor.shape for name, tensor in safetensors.numpy.load_file(file).items()} == {
        "parameters": (PARAMETERS,)
    }


def test_export_says_why_it_cannot_export(hypergpud: Hypergpud, home: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    done = hypergpud("export", str(file))
    assert (done.returncode, "has not been in any run" in done.stderr) == (2, True)
    made = certified(home)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for arguments, said in (
        ((), "it got 0 arguments"),
        (("a", "b", "c"), "it got 3 arguments"),
        (("abcdef", str(file)), "No run of this home has an id that begins with 'abcdef'"),
        ((str(tmp_path / "nowhere" / "file"),), "No such file or directory"),
        ((str(tmp_path),), "exists already"),
        (("--force", str(tmp_path)), "a directory or a device"),
        (("--force", str(pipe)), "a directory or a device"),
    ):
        done = hypergpud("export", *arguments)
        assert done.returncode != 0
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    assert pipe.is_fifo(), "export replaces only a file"
    made.checkpoints[-1].write_bytes(b"")
    done = hypergpud("export", str(file))
    assert done.returncode == 0
    assert "Number 4 is used instead" in done.stderr
    for path in made.checkpoints:
        path.write_bytes(b"")
    done = hypergpud("export", str(file), "--force")
    assert done.returncode == 1
    assert "has no checkpoint" in done.stderr
    assert str(made.checkpoints[0]) in done.stderr
    assert safetensors.numpy.load_file(file), "the earlier export is intact"


def test_repair_sets_damaged_files_aside_and_names_them(hypergpud: Hypergpud, home: Path) -> None:
    made = certified(home)
    before = everything_in(made.folder)
    done = hypergpud("repair")
    assert (done.returncode, done.stdout) == (
        0,
        f"No file of the run tests ({made.run.hex()[:12]}) is damaged.\n",
    )
    assert everything_in(made.folder) == before
    path = made.folder / "certificates"
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    before = everything_in(made.folder)
    with home_lock(home):
        assert "already runs" in hypergpud("repair").stderr
    done = hypergpud("repair", made.run.hex()[:12])
    assert done.returncode == 0
    assert "the record behind number 2, at byte" in done.stdout
    assert "Checkpoint 5 belongs to a certificate that is not on disk. Set aside: " in done.stdout
    assert (
        f"Nothing was deleted. hypergpud start --run {made.run.hex()[:12]} fetches" in done.stdout
    )
    after = everything_in(made.folder)
    assert set(before.values()) <= set(after.values())
    assert after["certificates.damaged"] == bytes(damaged)
    assert hypergpud("repair", "--json").stdout == f'{{"run":"{made.run.hex()}","set_aside":[]}}\n'
