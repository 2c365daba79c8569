"""Tests of the recent state of a home, with which `start` alone continues the last run."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.chain.home_runs import MANIFEST_FILE, keep_manifest, run_folder
from daemon.config.settings import Config, NetworkConfig
from daemon.disk.atomic import write_atomically
from daemon.home.recent_state import (
    MOST_ADDRESSES,
    MOST_RUNS,
    RECENT_STATE_FILE,
    last_port,
    last_run,
    load_recent_state,
    members_of,
    run_among,
    save_recent_state,
)
from daemon.node import run_choice
from daemon.node.manifest_search import with_members
from daemon.node.run_choice import RunChoice, begin_run, choose_run, seal_run
from protocol.errors import UserError
from protocol.identity import Signer
from protocol.rules.versions import FILE_RULES, RULES_2, check_rules
from protocol.run.manifest import Manifest, SignedManifest, seal
from protocol.run.manifest_file import load_manifest, parse_manifest
from tests.protocol.rules.test_versions import of_the_first_rules

ME = Signer(bytes(32))
OTHER = Signer(bytes([1]) * 32).peer
ADDRESS = f"/ip4/203.0.113.7/tcp/4001/p2p/{OTHER}"


def a_run(name: str) -> SignedManifest:
    return seal_run(parse_manifest(f'name = "{name}"\ntask = "none"\n', "run.toml"), ME)


def chosen(home: Path, named: str | None = None, *join: str) -> RunChoice:
    return choose_run(Path(named) if named else None, join, home, ME)


def run_manifest(choice: RunChoice) -> Manifest:
    assert choice.manifest is not None
    return choice.manifest.open()


def run_of(choice: RunChoice) -> str:
    assert choice.manifest is not None
    return choice.manifest.open().name


def test_start_in_a_new_home_begins_the_bundled_run(tmp_path: Path) -> None:
    choice = chosen(tmp_path)
    assert run_of(choice) == "stdlib-gpt"
    assert choice.join == ()
    assert "Run: stdlib-gpt, which comes with HyperGPU" in choice.assumed[0]
    assert not list(tmp_path.iterdir())


def test_start_alone_continues_the_last_run_with_its_members(
    tmp_path: Path,
) -> None:
    first, second = a_run("first"), a_run("second")
    save_recent_state(tmp_path, first, 4001, (ADDRESS,))
    save_recent_state(tmp_path, second, 4002)
    choice = chosen(tmp_path)
    assert (run_of(choice), choice.join, last_port(tmp_path)) == ("second", (), 4002)
    assert "the last run of this home" in choice.assumed[0]
    assert f"first ({first.run.hex()[:12]})" in choice.assumed[1]

    back = chosen(tmp_path, first.run.hex()[:12])
    assert (run_of(back), back.join) == ("first", (ADDRESS,))
    assert f"Joining the members of the last start: {ADDRESS}" in back.assumed[-1]
    save_recent_state(tmp_path, first, 4001)
    assert run_of(chosen(tmp_path)) == "first"
    assert members_of(tmp_path, first.run) == (ADDRESS,), (
        "before the first connection, the known members stay"
    )


def test_start_asks_only_the_named_nodes_for_a_run_and_joins_its_old_members_too(
    tmp_path: Path,
) -> None:
    run = a_run("here")
    save_recent_state(tmp_path, run, 4001, (ADDRESS,))
    elsewhere = ADDRESS.replace("4001", "4002")
    assert chosen(tmp_path, None, elsewhere) == RunChoice(
        manifest=None, join=(elsewhere,), assumed=(run_choice.RUN_OF_THE_JOINED,)
    )
    assert chosen(tmp_path, run.run.hex()[:8], elsewhere).join == (elsewhere, ADDRESS)
    config = Config(home=tmp_path, network=NetworkConfig(join=(elsewhere,)))
    assert with_members(config, run).network.join == (elsewhere, ADDRESS)


def test_start_with_the_file_of_a_known_run_joins_its_members(tmp_path: Path) -> None:
    save_recent_state(tmp_path, a_run("here"), 4001, (ADDRESS,))
    file = tmp_path / "run.toml"
    file.write_text('name = "here"\ntask = "none"\n')
    assert chosen(tmp_path, str(file)).join == (ADDRESS,)
    file.write_text('name = "elsewhere"\ntask = "none"\n')
    assert chosen(tmp_path, str(file)).join == ()


def test_start_without_recent_state_continues_the_only_run_of_a_home(
    tmp_path: Path,
) -> None:
    first, second = a_run("first"), a_run("second")
    keep_manifest(tmp_path, first)
    assert run_of(chosen(tmp_path)) == "first"
    keep_manifest(tmp_path, second)
    with pytest.raises(UserError) as caught:
        chosen(tmp_path)
    for words in (
        "several runs",
        f"first ({first.run.hex()[:12]})",
        f"second ({second.run.hex()[:12]})",
        "hypergpud start --run ",
    ):
        assert words in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "garbage",
    [b"", b"{", b"\xff\xfe", b"[1]", b'{"runs": [{"run": "zz"}]}', b'{"port": 70000}', b"[" * 5000],
)
def test_a_damaged_recent_state_is_ignored_and_replaced(garbage: bytes, tmp_path: Path) -> None:
    first, second = a_run("first"), a_run("second")
    save_recent_state(tmp_path, first, 4001, (ADDRESS,))
    (tmp_path / RECENT_STATE_FILE).write_bytes(garbage)
    assert load_recent_state(tmp_path) is None
    assert run_of(chosen(tmp_path)) == "first", "the home has only one run"
    keep_manifest(tmp_path, second)
    with pytest.raises(UserError, match="several runs") as caught:
        chosen(tmp_path)
    assert RECENT_STATE_FILE in caught.value.why
    save_recent_state(tmp_path, second, 4002)
    assert run_of(chosen(tmp_path)) == "second"


def test_start_does_not_replace_a_last_run_with_a_damaged_manifest(tmp_path: Path) -> None:
    first, second = a_run("first"), a_run("second")
    save_recent_state(tmp_path, second, 4001)
    save_recent_state(tmp_path, first, 4001)
    manifest = run_folder(tmp_path, first.run) / MANIFEST_FILE
    manifest.write_bytes(b"garbage")
    with pytest.raises(UserError) as caught:
        chosen(tmp_path)
    assert str(manifest) in caught.value.why
    assert "--join MULTIADDR" in caught.value.fix
    # Joining the run again restores its manifest.
    save_recent_state(tmp_path, first, 4001)
    assert last_run(tmp_path) == first


def everything_in(folder: Path) -> dict[Path, tuple[bytes, int]]:
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_start_refuses_a_run_of_the_first_rules_and_changes_nothing(tmp_path: Path) -> None:
    old = of_the_first_rules(Manifest(name="here", task="none"))
    save_recent_state(tmp_path, old, 4001, (ADDRESS,))
    before = everything_in(tmp_path)
    shown = old.run.hex()[:12]
    for named in (None, shown):
        with pytest.raises(UserError) as caught:
            chosen(tmp_path, named)
        assert caught.value.code == "RULES"
        assert "This run uses rules 1; this program knows rules 2, 3 and 4." in caught.value.what
        assert f"hypergpud export {shown} model.safetensors" in caught.value.fix
        assert "hypergpud start --home OTHER" in caught.value.fix
    assert everything_in(tmp_path) == before


def test_the_file_of_a_run_of_the_first_rules_begins_a_new_run(
    tmp_path: Path,
) -> None:
    old = of_the_first_rules(Manifest(name="here", task="none"))
    save_recent_state(tmp_path, old, 4001, (ADDRESS,))
    file = tmp_path / "run.toml"
    file.write_text('name = "here"\ntask = "none"\n')
    choice = chosen(tmp_path, str(file))
    assert choice.manifest == a_run("here")
    assert choice.manifest.run != old.run
    assert f"hypergpud export {old.run.hex()[:12]} FILE" in choice.assumed[0]


def test_the_file_of_a_run_of_rules_2_continues_it(tmp_path: Path) -> None:
    """A file without `rules` begins a run of the newest rules, whose defaults are others."""
    file = tmp_path / "run.toml"
    file.write_text('name = "here"\ntask = "none"\n')
    assert run_manifest(chosen(tmp_path, str(file))).rules == FILE_RULES
    begun = seal(load_manifest(file, rules=RULES_2))
    save_recent_state(tmp_path, begun, 4001)
    assert chosen(tmp_path, str(file)).manifest == begun
    # What rules 2 do not have begins a run of its own.
    file.write_text('name = "here"\ntask = "none"\n\n[round]\nmin_seconds = 3.0\n')
    assert run_manifest(chosen(tmp_path, str(file))).round.min_seconds == 3.0


def test_a_run_keeps_the_rules_under_which_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = seal_run(parse_manifest('name = "here"\ntask = "none"\n', "run.toml", rules=7), ME)
    save_recent_state(tmp_path, begun, 4001)
    monkeypatch.setattr(run_choice, "KNOWN_RULES", frozenset({4, 7}))
    monkeypatch.setattr(
        run_choice, "check_rules", lambda rules, run: check_rules(rules, run, {4, 7})
    )
    file = tmp_path / "run.toml"
    file.write_text('name = "here"\ntask = "none"\n')
    choice = chosen(tmp_path, str(file))
    assert choice.manifest == begun
    assert (
        "Rules: 7, under which this home began this run (rules = 4 in the file begins another run)."
        in choice.assumed
    )
    file.write_text('name = "here"\ntask = "none"\nrules = 4\n')
    assert chosen(tmp_path, str(file)).manifest == a_run("here")
    file.write_text('name = "here"\ntask = "none"\nrules = 9\n')
    with pytest.raises(
        UserError, match=r"uses rules 9; this program knows rules 4 and 7\. Upgrade hypergpu"
    ):
        chosen(tmp_path, str(file))


@pytest.mark.parametrize(("named", "said"), [("abcd", "No run"), ("deadbeef", "it was in here")])
def test_the_error_for_an_unknown_run_id_names_the_known_runs(
    named: str, said: str, tmp_path: Path
) -> None:
    save_recent_state(tmp_path, a_run("here"), 4001)
    with pytest.raises(UserError) as caught:
        chosen(tmp_path, named)
    assert said in str(caught.value)
    assert "no file has that name" in str(caught.value)


def test_run_among_returns_the_last_run_with_these_members(tmp_path: Path) -> None:
    assert run_among(tmp_path, (ADDRESS,)) is None
    run = a_run("here")
    save_recent_state(tmp_path, run, 4001, (ADDRESS,))
    assert run_among(tmp_path, (ADDRESS.replace("4001", "4002"),)) == run
    assert run_among(tmp_path, (ADDRESS.replace(OTHER, ME.peer),)) is None


def test_a_home_knows_its_run_by_the_name_in_dns_that_led_there(tmp_path: Path) -> None:
    """Else a restart while DNS is down could not continue the run."""
    run, name = a_run("here"), "/dnsaddr/swarm.example"
    save_recent_state(tmp_path, run, 4001, hoped=(name,))
    save_recent_state(tmp_path, run, 4001, (ADDRESS,))
    assert run_among(tmp_path, (name,)) == run
    assert run_among(tmp_path, ("/dnsaddr/other.example",)) is None
    save_recent_state(tmp_path, a_run("there"), 4001)
    assert run_among(tmp_path, (name,)) is None, "only the last run"


def test_the_recent_state_is_bounded_and_written_only_when_it_changes(tmp_path: Path) -> None:
    for number in range(MOST_RUNS + 3):
        save_recent_state(tmp_path, a_run(f"run {number}"), 4001)
    known = load_recent_state(tmp_path)
    assert known is not None
    assert len(known.runs) == MOST_RUNS
    last = a_run(f"run {MOST_RUNS + 2}")
    save_recent_state(
        tmp_path,
        last,
        4001,
        tuple(ADDRESS.replace("4001", str(4001 + n)) for n in range(MOST_ADDRESSES + 5)),
    )
    assert len(members_of(tmp_path, last.run)) == MOST_ADDRESSES
    file = tmp_path / RECENT_STATE_FILE
    write_atomically(file, [memoryview(file.read_bytes())], written_ns=10**9)
    save_recent_state(tmp_path, last, 4001)
    assert file.stat().st_mtime_ns == 10**9


def test_members_that_are_gone_stay_behind_those_of_now(tmp_path: Path) -> None:
    run, third = a_run("run"), Signer(bytes([3]) * 32).peer
    other = f"/ip6/2a01::1/tcp/4001/p2p/{third}"
    save_recent_state(tmp_path, run, 4001, (ADDRESS,))
    save_recent_state(tmp_path, run, 4001, (other,))
    assert members_of(tmp_path, run.run) == (other, ADDRESS)
    moved = ADDRESS.replace("203.0.113.7", "203.0.113.8")
    save_recent_state(tmp_path, run, 4001, (moved,))
    assert members_of(tmp_path, run.run) == (moved, other), "a member has one place"


def test_begin_run_saves_a_run_only_if_this_node_can_work_on_it(
    tmp_path: Path,
) -> None:
    """After Ctrl-C during the start, the next start continues the same run."""
    good = seal(Manifest(name="good", task="simple_cnn"))
    config = Config(home=tmp_path, network=NetworkConfig(join=(ADDRESS,)))
    begin_run(config, good)
    assert (run_of(chosen(tmp_path)), chosen(tmp_path).join) == ("good", (ADDRESS,))
    for code, other in (
        ("TASK", Manifest(name="other", task="none")),
        ("TASK_NOT_ALLOWED", Manifest(name="other", task="mine:Own")),
        ("ENGINE", Manifest(name="other", task="simple_cnn", engine="steam")),
        ("CHAIN", Manifest(name="other", task="simple_cnn", chain="dogecoin")),
    ):
        with pytest.raises(UserError) as caught:
            begin_run(config, seal(other))
        assert caught.value.code == code
        assert run_of(chosen(tmp_path)) == "good"


def test_an_untested_address_does_not_replace_a_working_one(
    tmp_path: Path,
) -> None:
    run = a_run("run")
    save_recent_state(tmp_path, run, 4001, hoped=("/sctp/::1/tcp/1/p2p/x",))
    assert members_of(tmp_path, run.run) == ()
    save_recent_state(tmp_path, run, 4001, (ADDRESS,))
    save_recent_state(tmp_path, run, 4001, hoped=(f"/ip4/203.0.113.9/tcp/1/p2p/{OTHER}",))
    assert members_of(tmp_path, run.run) == (ADDRESS,)
