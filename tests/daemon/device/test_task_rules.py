"""What a task may do with its model, and what is refused by name before it trains something else
than its author wrote.
"""

from __future__ import annotations

import pytest
import torch

from daemon.device.model.author_code import SampleFault, TaskFault
from daemon.device.settings import WorkerSettings
from daemon.device.tasks.catalog import load_task
from protocol.errors import UserError
from protocol.run.manifest import Inner
from tests.daemon.device import faulty_tasks
from tests.daemon.device.faulty_tasks import Changing, LineOptions, Made, Returns
from tests.daemon.device.loops import loop_of, training

OPTIONS = LineOptions()
DECAY = Inner(batch_size=4, weight_decay=0.5, learning_rate=0.1)


def test_a_frozen_parameter_stays_bit_for_bit_and_is_not_averaged() -> None:
    loop = training(faulty_tasks.Frozen(OPTIONS), DECAY)
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
def test_a_model_that_leaves_the_flat_vector_is_an_error_before_the_update(
    change: str, names: str
) -> None:
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
def test_a_change_of_later_steps_is_found_before_the_work_is_handed_over(change: str) -> None:
    task = Changing(OPTIONS)
    task.change, task.calls = change, -100
    loop = training(task)
    for _ in range(4):
        loop.step()
    faulty_tasks.CHANGES[change](loop._net.model)
    with pytest.raises(TaskFault):
        loop.pause()


def test_a_buffer_that_training_changes_is_refused_by_name() -> None:
    with pytest.raises(TaskFault, match="buffer mean changed"):
        training(faulty_tasks.OwnStatistics(OPTIONS)).step()


@pytest.mark.parametrize(
    ("task", "names"),
    [
        (faulty_tasks.Unregistered, r"model.layers\[0\].weight"),
        (faulty_tasks.OwnTemperature, "task.temperature"),
    ],
)
def test_what_requires_a_gradient_and_is_not_moved_is_named_at_the_first_step(
    task: type[faulty_tasks.Line], names: str
) -> None:
    with pytest.raises(TaskFault, match=names):
        training(task(OPTIONS)).step()


def test_two_parameters_in_one_memory_are_refused() -> None:
    with pytest.raises(UserError, match=r"0.weight and 1.weight share"):
        loop_of(faulty_tasks.SharedMemory(OPTIONS))


def test_a_tied_parameter_counts_once() -> None:
    loop, _ = loop_of(faulty_tasks.Tied(OPTIONS))
    assert loop.parameters == 3


def test_gradients_that_the_task_made_anew_count() -> None:
    plain, own = training(faulty_tasks.Line(OPTIONS)), training(faulty_tasks.OwnGradients(OPTIONS))
    for _ in range(6):
        plain.step()
        own.step()
    assert torch.equal(plain._net.flat, own._net.flat)


def test_a_model_in_eval_mode_stays_in_it() -> None:
    loop = training(faulty_tasks.Evaluating(OPTIONS))
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
def test_a_model_that_cannot_be_a_flat_vector_is_refused_by_name(what: str, words: str) -> None:
    with pytest.raises(UserError) as refusal:
        loop_of(Made(Made.Options(what=what)))
    assert words in refusal.value.why
    assert refusal.value.fix


@pytest.mark.parametrize("what", ["np.int64", "torch.int64", "loss (1,)"])
def test_what_torch_takes_is_taken(what: str) -> None:
    loop = training(Returns(Returns.Options(what=what)))
    for _ in range(2):
        loop.step()
    assert (loop.dataset_size, loop.pause().samples) == (100, 8)


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
def test_a_wrong_return_is_refused_with_its_place_and_a_fix(what: str, words: str) -> None:
    with pytest.raises(TaskFault) as fault:
        training(Returns(Returns.Options(what=what))).step()
    assert words in fault.value.what
    assert fault.value.fix
    if "()" in words:
        assert "faulty_tasks.py:" in fault.value.what


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (faulty_tasks.NanSample, "The loss is nan"),
        (faulty_tasks.BadSample, "image 17 is truncated"),
    ],
)
def test_a_bad_sample_costs_its_batch_alone(task: type[faulty_tasks.Line], words: str) -> None:
    """One of a hundred samples: one batch of 25 in each pass.

    Everything else is trained and kept.
    """
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
    assert loop.finite()
    assert loop.bad.last is not None
    assert (loop.bad.last.skipped, loop.bad.last.drawn) == (3, loop.bad.last.drawn)


def test_a_task_that_fails_at_every_batch_is_an_error_with_file_and_line() -> None:
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
    """A status cuts long sentences, and what to do stands at the end."""
    loop = training(faulty_tasks.Fails(OPTIONS), Inner(batch_size=64))
    for _ in range(5):
        with pytest.raises(SampleFault):
            loop.step()
    with pytest.raises(TaskFault) as fault:
        loop.step()
    assert fault.value.what.count(", ... (64 in all)") == 2
    assert len(fault.value.what) < 300
    assert loop.bad.last is not None
    assert loop.bad.last.where.count(",") > 2 * 10, "a skipped batch is listed further"


def test_sys_exit_of_a_task_is_told_at_once() -> None:
    with pytest.raises(TaskFault, match=r"faulty_tasks.py:\d+ loss\(\): it called sys.exit\(3\)"):
        training(faulty_tasks.Exits(OPTIONS)).step()


@pytest.mark.parametrize(
    ("name", "words"), [("Absent", "There is no task"), ("__name__", "is not a Task")]
)
def test_a_name_that_is_no_task_is_a_mistake_in_the_manifest(name: str, words: str) -> None:
    settings = WorkerSettings(allow_custom_task=True)
    with pytest.raises(UserError, match=words) as fault:
        load_task(f"{faulty_tasks.__name__}:{name}", {}, settings)
    assert fault.value.exit_code == 2
