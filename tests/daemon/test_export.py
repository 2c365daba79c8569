"""Tests that an interrupted export does not block the next export."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from daemon.home.layout import ensure_home
from daemon.results import export
from daemon.results.run_model import model_of_home
from tests.daemon.certified_home import CertifiedHome


def test_export_safetensors_leaves_no_file_when_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, file = tmp_path / "home", tmp_path / "model.safetensors"
    ensure_home(home)
    made = CertifiedHome(home, 1, None)
    trio.run(made.write)
    model = model_of_home(home, made.signed, None, print)

    def interrupted(*_arguments: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(export, "write_atomically", interrupted)
        with pytest.raises(KeyboardInterrupt):
            export.export_safetensors(model, file, force=False)
    assert not file.exists()
    export.export_safetensors(model, file, force=False)
    assert file.exists()
