"""Tests of the rules for tasks: what they may do with their model, and what is refused."""

from __future__ import annotations

import pytest
import torch

from daemon.device.model.author_code import SampleFault, TaskFault
from daemon.device.settings import WorkerSettings
from daemon.device.tasks.catalog import load_task
from protocol.errors import UserError
from protocol.run.manifest import Inner
from tests.daemon.device import faulty_tasks, unusual_models
from tests.daemon.device.faulty_tasks import LineOptions
from tests.daemon.device.loops import loop_of, training
from tests.daemon.device.unusual_models import Changing
from tests.daemon.device.wrong_returns import Made, Returns

OPTIONS = LineOptions()
DECAY = Inner(batch_size=4, weight_decay=0.5, learning_rate=0.1)


def test_a_frozen_parameter_keeps_its_bits_and_is_not_averaged() -> None:
    loop = training(unusual_models.Frozen(OPTIONS), DECAY)
    for _ in range(5):
        loop.step()
    assert loop.pause().steps == 5
    assert [spec.name for spec in loop.specs] == ["head.weight", "head.bias"]
    assert torch.equal(loop._net.model.table, torch.full((4, 4), 0.5))


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ("other memory", "head.weight"),
        ("replaced", "head.weight"),
        ("added", "more.weight"),
        ("thawed", "table"),
        ("frozen", "head.weight"),
        ("table", "table"),
        ("removed", "head.bias"),
    ],
)
def test_a_changed_model_is_refused_before_the_update(change: str, names: str) -> None:
    task = Changing(OPTIONS)
    task.change = change
    loop = training(task)
    loop.step()
    before = loop._net.flat.clone()
    with pytest.raises(TaskFault) as fault:
        loop.step()
    assert names in fault.value.what
    assert fault.value.fix
    assert torch.equal(loop._net.flat, before)


@pytest.mark.parametrize("change", ["other memory", "added", "thawed", "table"])
def test_a_model_changed_in_a_later_step_is_refused_at_the_pause(change: str) -> None:
    task = Changing(OPTIONS)
    task.change, task.calls = change, -100
    loop = training(task)
    for _ in range(4):
        loop.step()
    unusual_models.CHANGES[change](loop._net.model)
    with pytest.raises(TaskFault):
        loop.pause()


def test_a_buffer_that_training_changes_is_refused() -> None:
    with pytest.raises(TaskFault, match="buffer mean changed"):
        training(unusual_models.OwnStatistics(OPTIONS)).step()


@pytest.mark.parametrize(
    ("task", "names"),
    [
        (unusual_models.Unregistered, r"model.layers\[0\].weight"),
        (unusual_models.OwnTemperature, "task.temperature"),
    ],
)
def test_a_tensor_with_a_gradient_outside_the_model_is_refused(
    task: type[faulty_tasks.Line], names: str
) -> None:
    with pytest.raises(TaskFault, match=names):
        training(task(OPTIONS)).step()


def test_parameters_that_share_memory_are_refused() -> None:
    with pytest.raises(UserError, match=r"0.weight and 1.weight share"):
        loop_of(unusual_models.SharedMemory(OPTIONS))


def test_a_tied_parameter_counts_once() -> None:
    loop, _ = loop_of(unusual_models.Tied(OPTIONS))
    assert loop.parameters == 3


def test_gradients_that_the_task_replaced_are_used() -> None:
    plain, own = (
        training(faulty_tasks.Line(OPTIONS)),
        training(unusual_models.OwnGradients(OPTIONS)),
    )
    for _ in range(6):
        plain.step()
        own.step()
    assert torch.equal(plain._net.flat, own._net.flat)


def test_a_model_in_eval_mode_stays_in_eval_mode() -> None:
    loop = training(unusual_models.Evaluating(OPTIONS))
    for _ in range(4):
        loop.step()
    assert loop.pause().steps == 4
    assert not any(module.training for module in loop._net.model.modules())


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("no parameters", "no parameters that require"),
        ("all frozen", "no parameters that require"),
        ("float64", "weight is torch.float64"),
        ("bfloat16", "weight is torch.bfloat16"),
        ("complex", "weight is torch.complex64"),
        ("meta", "weight is on the meta device"),
        ("lazy", "its module is lazy"),
        ("None", "returned a NoneType"),
    ],
)
def test_a_model_that_cannot_be_a_flat_vector_is_refused(what: str, words: str) -> None:
    with pytest.raises(UserError) as refusal:
        loop_of(Made(Made.Options(what=what)))
    assert words in refusal.value.why
    assert refusal.value.fix


@pytest.mark.parametrize("what", ["np.int64", "torch.int64", "loss (1,)"])
def test_returns_that_torch_accepts_are_accepted(what: str) -> None:
    loop = training(Returns(Returns.Options(what=what)))
    for _ in range(2):
        loop.step()
    assert (loop.split.total, loop.pause().samples) == (100, 8)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("size 0", "dataset_size() returned 0"),
        ("size -3", "dataset_size() returned -3"),
        ("size True", "dataset_size() returned True"),
        ("size 1.5", "dataset_size() returned 1.5, a float"),
        ("size None", "dataset_size() returned None"),
        ("size 2**63", "does not fit 63 bits"),
        ("batch dict", "batch() returned a dict"),
        ("batch tensor", "batch() returned a Tensor"),
        ("batch None", "batch() returned a NoneType"),
        ("batch numpy", "batch() returned a ndarray in place 1"),
        ("batch short", "batch() was asked for 4 samples and returned 2"),
        ("loss vector", "loss() returned a tensor of shape (4,)"),
        ("loss None", "loss() returned a NoneType"),
        ("loss float", "loss() returned a float"),
        ("loss detached", "depends on no parameter"),
        ("loss of nothing", "depends on no parameter"),
        ("loss int", "loss() returned a tensor of type torch.int64"),
    ],
)
def test_the_fault_of_a_wrong_return_has_its_place_and_a_fix(what: str, words: str) -> None:
    with pytest.raises(TaskFault) as fault:
        training(Returns(Returns.Options(what=what))).step()
    assert words in fault.value.what
    assert fault.value.fix
    if "()" in words:
        assert "wrong_returns.py:" in fault.value.what


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (faulty_tasks.NanSample, "The loss is nan"),
        (faulty_tasks.BadSample, "image 17 is truncated"),
    ],
)
def test_a_bad_sample_costs_only_its_batch(task: type[faulty_tasks.Line], words: str) -> None:
    """One of a hundred samples is bad: one of 25 batches in each pass."""
    loop = training(task(OPTIONS))
    skipped = 0
    for _ in range(75):
        try:
            loop.step()
        except SampleFault:
            skipped += 1
            assert loop.bad.last is not None
            assert words in loop.bad.last.what
            if loop.bad.should_report:
                assert loop.bad.last.where.startswith("sample 17 (position ")
    work = loop.pause()
    assert (skipped, work.samples) == (3, 72 * 4)
    assert work.dropped == 0
    assert loop.bad.last is not None
    assert (loop.bad.last.skipped, loop.bad.last.drawn) == (3, loop.bad.last.drawn)


def test_a_task_that_fails_at_every_batch_ends_with_file_and_line() -> None:
    loop = training(faulty_tasks.Fails(OPTIONS))
    for _ in range(5):
        with pytest.raises(SampleFault):
            loop.step()
    with pytest.raises(TaskFault) as fault:
        loop.step()
    assert "faulty_tasks.py:" in fault.value.what
    assert "RuntimeError: the cat sat on the data" in fault.value.what
    assert "data indices" in fault.value.what
    assert 'raise RuntimeError("the cat sat on the data")' in fault.value.trace


def test_a_task_that_fails_at_every_batch_names_few_samples_of_a_large_batch() -> None:
    """A status cuts long sentences, and the fix is at their end."""
    loop = training(faulty_tasks.Fails(OPTIONS), Inner(batch_size=64))
    for _ in range(5):
        with pytest.raises(SampleFault):
            loop.step()
    with pytest.raises(TaskFault) as fault:
        loop.step()
    assert fault.value.what.count(", ... (64 in all)") == 2
    assert len(fault.value.what) < 300
    assert loop.bad.last is not None
    assert loop.bad.last.where.count(",") > 2 * 10, (
        "the report of a skipped batch names more samples"
    )


def test_a_task_that_calls_sys_exit_ends_at_once() -> None:
    with pytest.raises(TaskFault, match=r"faulty_tasks.py:\d+ loss\(\): it called sys.exit\(3\)"):
        training(faulty_tasks.Exits(OPTIONS)).step()


@pytest.mark.parametrize(
    ("name", "words"), [("Absent", "There is no task"), ("__name__", "is not a Task")]
)
def test_a_name_that_is_not_a_task_is_a_user_error(name: str, words: str) -> None:
    settings = WorkerSettings(allow_custom_task=True)
    with pytest.raises(UserError, match=words) as fault:
        load_task(f"{faulty_tasks.__name__}:{name}", {}, settings)
    assert fault.value.exit_code == 2
