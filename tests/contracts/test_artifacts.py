"""The committed artifacts are what the sources give."""

from __future__ import annotations

import subprocess
from hashlib import sha256
from pathlib import Path

import pytest

from contracts.artifacts import PLACES, artifact

REPOSITORY = Path(__file__).parents[2]
SOURCES = REPOSITORY / "contracts" / "src"
COMPILER = REPOSITORY / ".venv-contracts" / "bin" / "python"


def test_each_contract_has_a_current_artifact_and_an_address() -> None:
    assert {source.stem for source in SOURCES.glob("*.vy")} == set(PLACES)
    used = set()
    for name in PLACES:
        for file, digest in artifact(name).sources.items():
            used.add(file)
            assert digest == sha256((SOURCES / file).read_bytes()).hexdigest(), (
                f"{file} changed; type: make contracts"
            )
    assert used == {str(source.relative_to(SOURCES)) for source in SOURCES.rglob("*.vy")}


@pytest.mark.real
@pytest.mark.skipif(
    not COMPILER.exists(),
    reason="the contracts' compiler is not installed; type: make contracts-check",
)
def test_the_compiler_gives_the_committed_artifacts() -> None:
    done = subprocess.run(
        [COMPILER, "contracts/build.py", "--check"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
