"""A demo's daemons are the founders of its run."""

from __future__ import annotations

from pathlib import Path

from daemon.demo.founders import with_demo_founders
from daemon.home.node_key import load_or_make_key
from daemon.node.run_choice import seal_run
from protocol.run.manifest_file import parse_manifest

TEXT = 'name = "run"\ntask = "none"\nrules = {rules}\n\n[round]\nseconds = 4.0\n'


def test_every_daemon_of_a_demo_votes_from_the_first_round_on(tmp_path: Path) -> None:
    homes = [tmp_path / f"node-{number}" for number in (1, 2, 3)]
    text = with_demo_founders(TEXT.format(rules=4), homes)
    signers = [load_or_make_key(home)[0] for home in homes]
    manifest = seal_run(parse_manifest(text, "run.toml"), signers[0]).open()
    assert manifest.founders == tuple(sorted(signer.peer for signer in signers))
    assert (manifest.owner, manifest.admits) == (signers[0].peer, "invite")
    assert manifest.round.seconds == 4.0
    assert with_demo_founders(text, homes) == text


def test_a_run_of_earlier_rules_stays_as_it_is(tmp_path: Path) -> None:
    text = TEXT.format(rules=3)
    assert with_demo_founders(text, [tmp_path / "node-1"]) == text
    assert not list(tmp_path.iterdir())
