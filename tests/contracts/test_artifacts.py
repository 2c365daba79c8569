"""What is committed is what the sources make."""

from __future__ import annotations

import subprocess
from hashlib import sha256
from pathlib import Path

import pytest

from contracts.artifacts import PLACES, artifact

REPOSITORY = Path(__file__).parents[2]
COMPILER = REPOSITORY / ".venv-contracts" / "bin" / "python"


def test_each_source_has_its_artifact_and_its_place() -> None:
    sources = {source.stem: source for source in (REPOSITORY / "contracts" / "src").glob("*.vy")}
    assert set(sources) == set(PLACES)
    for name, source in sources.items():
        assert artifact(name).source_sha256 == sha256(source.read_bytes()).hexdigest(), (
            f"{name} changed; type: make contracts"
        )


@pytest.mark.real
@pytest.mark.skipif(
    not COMPILER.exists(),
    reason="the contracts' compiler is not installed; type: make contracts-check",
)
def test_the_compiler_makes_the_committed_bytes() -> None:
    done = subprocess.run(
        [COMPILER, "contracts/build.py", "--check"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
