"""The options of `bench training` become the settings of each arm, or an error that names them."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocol.errors import UserError
from protocol.identity import Signer
from simulator.bench.allreduce.peer_hosts import parse_link_rate
from simulator.bench.training.model_size import SIZES
from simulator.bench.training.peer_settings import ARMS
from simulator.bench.training.plan import (
    hivemind_rules,
    native_manifest,
    optimizer_rules,
    variants_of,
)
from tests.simulator.training_plans import plan_of


def test_options_of_the_command_set_and_sweep_settings() -> None:
    swept = variants_of(
        ("native", "gloo"),
        ("native:codec=int8", "gloo:learning_rate=0.003"),
        ("outer.momentum=0.0,0.9", "round.seconds=2.0,5.0"),
    )
    assert len(swept) == 5
    assert swept[1].settings == {
        "codec": "int8",
        "outer.momentum": "0.0",
        "round.seconds": "5.0",
    }
    plan = plan_of()
    founders = [Signer(bytes([index] * 32)).peer for index in range(2)]
    manifest = native_manifest(plan, swept[1], 7, Path("/steps"), founders).open()
    assert set(manifest.founders) == set(founders)
    assert (manifest.codec, manifest.outer.momentum, manifest.round.seconds) == ("int8", 0.0, 5.0)
    assert (manifest.seed, manifest.inner.batch_size) == (7, plan.batch_size)
    assert manifest.task_options["records"] == "/steps"
    assert optimizer_rules(plan, swept[4]).learning_rate == 0.003


def test_settings_that_do_not_exist_are_errors() -> None:
    plan = plan_of()
    for changes, sweeps in ((("native",), ()), ((), ("outer.momentum",))):
        with pytest.raises(UserError):
            variants_of(("native",), changes, sweeps)
    with pytest.raises(UserError, match="no arm"):
        variants_of(("horovod",), (), ())
    (wrong,) = variants_of(("native",), ("native:outer.speed=1",), ())
    with pytest.raises(UserError, match=r"outer\.speed=1"):
        native_manifest(plan, wrong, 1, Path("/steps"))
    for change in ("hivemind-b:target_batch_size=many", "hivemind-b:rounds=2"):
        (wrong,) = variants_of(("hivemind-b",), (change,), ())
        with pytest.raises(UserError, match="no such setting"):
            hivemind_rules(plan, wrong)


def test_every_arm_but_native_has_a_tuned_learning_rate_for_every_size() -> None:
    for size in SIZES.values():
        assert set(size.tuning) == set(ARMS) - {"native"}
        for arm, tuned in size.tuning.items():
            assert (tuned.hivemind is not None) == arm.startswith("hivemind")


def test_link_rate_names_down_and_up() -> None:
    assert parse_link_rate("100mbit/20mbit") == (100e6, 20e6)
    assert parse_link_rate("1gbit") == (1e9, 1e9)
    assert parse_link_rate("none") == (None, None)
    with pytest.raises(UserError):
        parse_link_rate("100mbit/fast")
