"""Where `generate` and `api` look for stages without --join."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from daemon.cli import joined_stage
from daemon.cli.invocation import Invocation
from daemon.cli.joined_stage import joined_config
from daemon.home.recent_state import save_recent_state
from daemon.node.stage_report import StageReport
from protocol.errors import UserError
from protocol.identity import Signer
from protocol.run.manifest import Manifest, seal

MEMBER = f"/ip4/127.0.0.1/tcp/4001/p2p/{Signer(bytes(32)).peer}"
STAGE = f"/ip4/127.0.0.1/tcp/4002/p2p/{Signer(bytes([1]) * 32).peer}"


def joined(home: Path) -> tuple[str, ...]:
    return joined_config(
        Invocation(home_flag=str(home)), (), "hypergpud generate PROMPT"
    ).network.join


def test_members_of_the_last_run_are_asked_where_no_stage_runs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No stage to generate with"):
        joined(tmp_path)
    signed = seal(Manifest(name="gpt", task="byte_gpt"))
    save_recent_state(tmp_path, signed, 4000, (MEMBER,))
    assert joined(tmp_path) == (MEMBER,)


def test_stage_of_this_home_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_recent_state(tmp_path, seal(Manifest(name="gpt", task="byte_gpt")), 4000, (MEMBER,))
    report = StageReport(model="aa", name="gpt", addresses=(STAGE,), generations=0, detail="")
    monkeypatch.setattr(joined_stage, "call", lambda _home, _name: msgspec.json.encode(report))
    assert joined(tmp_path) == (STAGE,)
