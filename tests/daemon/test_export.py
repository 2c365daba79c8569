"""Tests that an interrupted export does not block the next export."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from daemon import export
from daemon.home.layout import ensure_home
from tests.daemon.certified_home import CertifiedHome


def test_export_run_leaves_no_file_when_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, file = tmp_path / "home", tmp_path / "model.safetensors"
    ensure_home(home)
    made = CertifiedHome(home, 1, None)
    trio.run(made.write)

    def interrupted(*_arguments: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(export, "write_atomically", interrupted)
        with pytest.raises(KeyboardInterrupt):
            export.export_run(home, made.signed, file, force=False, say=print)
    assert not file.exists()
    export.export_run(home, made.signed, file, force=False, say=print)
    assert file.exists()
