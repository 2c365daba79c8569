"""Tests that this version opens a home of the version before: same file names, same formats."""

from __future__ import annotations

from pathlib import Path

from daemon.disk.ledger_file import FORMAT as LEDGER_FORMAT
from daemon.disk.run_folder import RunFolder
from daemon.home.recent_state import last_port, load_recent_state

RUN = "ab" * 32
ADDRESS = "/ip4/192.0.2.1/tcp/46273/p2p/12D3KooWQLzsjPi3VrBLqwCHuXHNrECmrNaH7s29XPNkBPFhdTPm"


def test_the_files_of_a_home_keep_their_names() -> None:
    folder = RunFolder(Path("/home"), bytes.fromhex(RUN))
    names = [
        path.relative_to("/home").as_posix().replace(RUN, "RUN")
        for path in (
            folder.checkpoints,
            folder.abandoned,
            folder.ledger,
            folder.view_records,
            folder.certificates,
            folder.proofs,
        )
    ]
    assert names == [
        "runs/RUN/checkpoints",
        "runs/RUN/checkpoints/left",
        "runs/RUN/ledger.safetensors",
        "runs/RUN/stands",
        "runs/RUN/certificates",
        "runs/RUN/proofs",
    ]
    assert LEDGER_FORMAT == "hypergpu/ledger/2"


def test_the_recent_state_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    text = f'{{"port": 46273, "runs": [{{"run": "{RUN}", "members": ["{ADDRESS}"]}}]}}'
    (tmp_path / "remembered.json").write_text(text, encoding="utf-8")
    state = load_recent_state(tmp_path)
    assert state is not None
    assert (state.runs[0].run, state.runs[0].members) == (RUN, (ADDRESS,))
    assert last_port(tmp_path) == 46273
