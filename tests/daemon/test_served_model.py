"""Tests which model a name means: a run of the home, a certificate of it, a path, or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

from daemon.config.loader import load_config
from daemon.home.layout import ensure_home
from daemon.results.served_model import file_of_run, open_served_model
from protocol.errors import UserError
from protocol.run.manifest import seal
from tests.daemon.certified_home import CertifiedHome
from tests.protocol.rounds import MANIFEST


def home_with(task: str, folder: Path) -> CertifiedHome:
    ensure_home(folder)
    made = CertifiedHome(folder, 4, seal(replace(MANIFEST, task=task)))
    trio.run(made.write)
    return made


def test_run_of_the_home_becomes_a_file_once(tmp_path: Path) -> None:
    made = home_with("byte_gpt", tmp_path)
    run = made.run.hex()[:8]
    name, file = file_of_run(tmp_path, run, None, print)
    assert name == f"{made.manifest.name} at 4"
    written = file.stat()
    assert file_of_run(tmp_path, run, None, print) == (name, file)
    assert file.stat() == written
    # Another certificate is another file.
    assert file_of_run(tmp_path, run, "3", print)[1] != file
    with pytest.raises(UserError, match="certificate 77"):
        file_of_run(tmp_path, run, "77", print)


def test_run_whose_task_has_no_stages_says_what_to_type(tmp_path: Path) -> None:
    made = home_with("simple_cnn", tmp_path)
    with pytest.raises(UserError, match="--format hf"):
        file_of_run(tmp_path, made.run.hex(), None, print)


def test_name_that_means_nothing_is_refused(tmp_path: Path) -> None:
    ensure_home(tmp_path)
    config, _ = load_config(tmp_path, None, {}, {})
    with pytest.raises(UserError, match="no file has that name"):
        trio.run(open_served_model, config, "no-such-model", print)
