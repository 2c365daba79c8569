"""Tests of the messages for exceptions in a task's own code."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch

from daemon.device.model.author_code import (
    MAX_TRACE_CHARS,
    MemoryShort,
    SampleFault,
    TaskFault,
    author_code,
    place_of,
)
from protocol.errors import UserError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def failing(folder: Path, name: str, source: str) -> TaskFault:
    """Import a module with this source, and return its fault."""
    (folder / f"{name}.py").write_text(source)
    try:
        with pytest.raises(TaskFault) as fault, author_code(f"import {name}"):
            importlib.import_module(name)
    finally:
        sys.modules.pop(name, None)
    return fault.value


def test_a_fault_names_the_innermost_line_of_the_authors_code(folder: Path) -> None:
    fault = failing(
        folder, "wine", "import json\ndef load():\n    return json.loads('{')\nload()\n"
    )
    assert fault.what.startswith(
        "Task failed in wine.py:3 import wine in load(): json.decoder.JSONDecodeError"
    )
    assert "_bootstrap" not in fault.trace
    assert "/daemon/device/model/author_code.py" not in fault.trace
    assert "return json.loads('{')" in fault.trace


def test_a_fault_names_the_line_of_a_syntax_error(folder: Path) -> None:
    fault = failing(folder, "broken", "x = 1\nclass Broken(\n")
    assert (
        fault.what == "Task failed in broken.py:2 import broken: SyntaxError: '(' was never closed"
    )
    assert "broken.py" in fault.trace
    assert "_bootstrap" not in fault.trace


def test_a_long_traceback_keeps_its_end(folder: Path) -> None:
    source = """
def deep(n):
    try:
        deep(n - 1) if n else 1 / 0
    except Exception as error:
        raise ValueError("level", n) from error
deep(60)
"""
    fault = failing(folder, "deep", source)
    assert fault.what.endswith("ValueError: ('level', 60)")
    assert len(fault.trace) <= MAX_TRACE_CHARS + 4
    assert fault.trace.rstrip().endswith("ValueError: ('level', 60)")


def test_author_code_turns_only_foreign_exceptions_into_faults() -> None:
    with pytest.raises(UserError), author_code("batch()", SampleFault):
        raise UserError("DATA", "no data")
    with pytest.raises(TaskFault), author_code("batch()", SampleFault):
        raise TaskFault("a rule")
    with pytest.raises(SampleFault), author_code("batch()", SampleFault):
        raise OSError("truncated")
    with pytest.raises(KeyboardInterrupt), author_code("batch()", SampleFault):
        raise KeyboardInterrupt


def test_place_of_returns_file_line_and_name() -> None:
    assert place_of(failing).startswith("test_author_code.py:")
    assert place_of(failing).endswith(" failing()")
    assert place_of(len) == "len()"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory:"
            " you tried to allocate 8 bytes"
        ),
        OSError(12, "Cannot allocate memory"),
    ],
)
@pytest.mark.parametrize("kind", [SampleFault, TaskFault])
def test_a_lack_of_memory_becomes_memory_short(
    error: Exception, kind: type[SampleFault | TaskFault]
) -> None:
    with (
        pytest.raises(MemoryShort, match=r"The worker ran out of memory in .*loss\(\)") as short,
        author_code("loss()", kind),
    ):
        raise error
    assert type(error).__name__ in short.value.trace
    with pytest.raises(MemoryShort), author_code("loss()", kind):
        raise ValueError("this batch") from error


def test_other_errors_become_task_faults() -> None:
    for error in (RuntimeError("the cat sat on the data"), OSError(5, "Input/output error")):
        with pytest.raises(TaskFault), author_code("loss()"):
            raise error
