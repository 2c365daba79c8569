"""Tests of runs that begin from weights: the manifest, the file, and what does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trio
from safetensors.numpy import save_file

from daemon.config.settings import Config
from daemon.disk.initial_file import InitialFile
from daemon.home.layout import ensure_home
from daemon.results.initial_weights import begin_from_weights, flat_vector
from daemon.swarm.initial_transfer import first_state
from protocol.averaging.outer_step import state_digest
from protocol.digest import merkle_root
from protocol.errors import UserError
from protocol.identity import Signer
from protocol.ports.trainer import ParameterSpec
from protocol.rules.versions import RULES_2, RULES_4
from protocol.run.founders import with_founders
from protocol.run.initial_state import begin_from, check_beginning, initial_digest
from protocol.run.manifest import Manifest, SignedManifest, seal
from protocol.run.manifest_versions import RULES_3

OWNER = Signer(bytes(32))
VECTOR = np.arange(6, dtype=np.float32) - 2
SPECS = (
    ParameterSpec(name="a.weight", shape=(2, 2), init="uniform", bound=1.0),
    ParameterSpec(name="a.bias", shape=(2,), init="zeros"),
)


def run_of(rules: int, **fields: object) -> Manifest:
    plain = Manifest(name="run", task="byte_gpt", rules=rules, **fields)  # type: ignore[arg-type]
    return with_founders(plain, [OWNER.peer]) if rules >= RULES_4 else plain


def test_other_weights_make_another_run() -> None:
    first, second = (seal(begin_from(run_of(RULES_4), VECTOR + add)) for add in (0, 1))
    assert first.run != second.run != seal(run_of(RULES_4)).run
    assert first.open().initial == initial_digest(VECTOR)
    assert bytes.fromhex(first.open().initial) == state_digest(VECTOR, np.zeros_like(VECTOR))


@pytest.mark.parametrize("rules", [RULES_2, RULES_3])
def test_earlier_rules_have_no_initial_state(rules: int) -> None:
    with pytest.raises(UserError, match="write rules = 4"):
        check_beginning(run_of(rules))


def test_a_file_that_names_other_weights_is_refused() -> None:
    with pytest.raises(UserError, match="not the weights"):
        begin_from(run_of(RULES_4, initial="0" * 64), VECTOR)


def test_flat_vector_follows_the_tasks_order() -> None:
    tensors = {"a.bias": VECTOR[4:], "a.weight": VECTOR[:4].reshape(2, 2), "other": VECTOR}
    assert np.array_equal(flat_vector(SPECS, tensors, "w"), VECTOR)
    assert np.array_equal(flat_vector(SPECS, {"parameters": VECTOR}, "w"), VECTOR)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"a.weigth": VECTOR[:4]}, "is 'a.weigth' meant"),
        ({"a.weight": VECTOR[:4]}, "shape"),
        ({"parameters": VECTOR[:5]}, "has 5 values, the task 6"),
        ({"parameters": VECTOR * np.float32(np.nan)}, "not finite"),
    ],
)
def test_flat_vector_refuses_what_does_not_fit(tensors: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(UserError, match=words):
        flat_vector(SPECS, tensors, "w")


def test_initial_file_keeps_bytes_and_notices_damage(tmp_path: Path) -> None:
    file = InitialFile(tmp_path, bytes(32))
    assert (file.exists(), file.load(), file.read(0, 4)) == (False, None, None)
    file.save(VECTOR)
    loaded = file.load()
    assert loaded is not None
    assert np.array_equal(loaded, VECTOR)
    assert file.read(4, 8) == VECTOR[1:3].tobytes()
    found = first_state(file)
    assert found is not None
    assert merkle_root(found[1]) == state_digest(VECTOR, np.zeros_like(VECTOR))
    path = next(tmp_path.rglob("initial.safetensors"))
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    assert file.load() is None


@pytest.mark.real
def test_begin_from_weights_writes_them_into_the_home(tmp_path: Path) -> None:
    home = tmp_path / "home"
    ensure_home(home)
    manifest = run_of(RULES_4, task_options={"layers": 1, "width": 16, "heads": 2, "context": 8})

    def sealed(changed: Manifest) -> SignedManifest:
        return seal(changed)

    said: list[str] = []
    wrong = tmp_path / "wrong.safetensors"
    save_file({"embedding.weight": np.ones((3, 3), np.float32)}, wrong)
    with pytest.raises(UserError, match=r"shape \(3, 3\)"):
        trio.run(begin_from_weights, Config(home=home), manifest, str(wrong), sealed, said.append)
    with pytest.raises(UserError, match="takes a safetensors file"):
        trio.run(begin_from_weights, Config(home=home), manifest, "nowhere", sealed, said.append)
    from daemon.device.model.flat_model import FlatModel  # noqa: PLC0415
    from daemon.device.settings import WorkerSettings  # noqa: PLC0415
    from daemon.device.tasks.catalog import load_task  # noqa: PLC0415

    torch = pytest.importorskip("torch")
    task = load_task("byte_gpt", manifest.task_options, WorkerSettings())
    net = FlatModel(task, torch.device("cpu"))
    net.flat.uniform_()
    right = tmp_path / "right.safetensors"
    save_file({name: p.detach().numpy().copy() for name, p, _ in net.moved}, right)
    signed = trio.run(
        begin_from_weights, Config(home=home), manifest, str(right), sealed, said.append
    )
    kept = InitialFile(home, signed.run).load()
    assert kept is not None
    assert np.array_equal(kept, net.flat.numpy())
    assert signed.open().initial == initial_digest(kept)
    assert "begins with the weights" in said[-1]
