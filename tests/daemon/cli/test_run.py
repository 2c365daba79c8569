"""`run rollback|recover|fork|follow`: what they sign and write, and what they say otherwise."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trio
from msgspec.structs import replace

from daemon.chain.home_runs import keep_manifest
from daemon.disk.file_disk import FileDisk
from daemon.disk.initial_file import InitialFile
from daemon.home.invitations import Entry, Terms, load_invitations, make_invitation
from daemon.home.layout import ensure_home
from daemon.home.node_key import load_or_make_key
from daemon.home.recent_state import kept_manifest, save_recent_state
from daemon.home.run_branches import kept_tips, read_followed
from daemon.home.run_membership import load_owner_records
from daemon.node.run_choice import seal_run
from protocol.averaging.outer_step import state_digest
from protocol.certificates.tip import encode_tip, genesis_of
from protocol.identity import Signer
from protocol.ports.disk_records import Checkpoint
from protocol.ports.offload import inline
from protocol.run.initial_state import initial_digest
from protocol.run.manifest import Manifest, SignedManifest
from tests.daemon.cli.conftest import Hypergpud

pytestmark = pytest.mark.real
FRIEND = Signer(bytes([1]) * 32)
ANCHOR = np.arange(8, dtype=np.float32)


async def write_checkpoint(home: Path, signed: SignedManifest, number: int) -> None:
    """Write a checkpoint of a run of rules 4, with its tip."""
    begin = genesis_of(signed.run, signed.open())
    state = state_digest(ANCHOR, np.zeros_like(ANCHOR))
    tip = replace(begin, number=number, state=state, hash=bytes([number]) * 32)
    await FileDisk(home, inline).save_checkpoint(
        Checkpoint(
            run=signed.run,
            tip=tip.hash,
            number=number,
            anchor=ANCHOR,
            momentum=np.zeros_like(ANCHOR),
            inner=np.zeros(0, np.float32),
            stood=encode_tip(tip),
        )
    )


@pytest.fixture
def owned(home: Path) -> SignedManifest:
    """A run that this home owns, with checkpoints of certificates 3 and 7."""
    ensure_home(home)
    signer, _ = load_or_make_key(home)
    manifest = Manifest(name="mine", task="none", rules=4)
    signed = seal_run(manifest, signer)
    keep_manifest(home, signed)
    save_recent_state(home, signed, 4001)
    for number in (3, 7):
        trio.run(write_checkpoint, home, signed, number)
    return signed


def test_run_rollback_signs_a_recovery_with_the_next_serial(
    hypergpud: Hypergpud, home: Path, owned: SignedManifest
) -> None:
    refused = hypergpud("run", "rollback", "--to", "5")
    assert refused.returncode == 2
    assert "has no checkpoint of certificate 5" in refused.stderr
    assert "3, 7" in refused.stderr
    assert "hypergpud run rollback --to 3" in refused.stderr
    done = hypergpud("run", "rollback", "--to", "3")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Signed recovery 1: the run goes on from certificate 3" in done.stdout
    assert "hypergpud start" in done.stdout
    more = hypergpud("run", "recover", "--voter", FRIEND.peer, "--json")
    assert json.loads(more.stdout)["serial"] == 2
    kept = load_owner_records(home, owned)
    assert [one.number for one in kept.recoveries] == [3, 7]
    assert kept.recovery is not None
    assert kept.recovery.voters == (FRIEND.peer,)
    assert kept.recoveries[0].voters == (owned.open().owner,)
    assert [one.tip.number for one in kept_tips(home, owned)] == [3, 7]


def test_run_recover_is_for_the_owner(hypergpud: Hypergpud, home: Path) -> None:
    ensure_home(home)
    load_or_make_key(home)
    signed = seal_run(Manifest(name="theirs", task="none", rules=4), FRIEND)
    keep_manifest(home, signed)
    save_recent_state(home, signed, 4001)
    refused = hypergpud("run", "recover")
    assert refused.returncode == 2
    assert "Only the owner of the run 'theirs' names its voters" in refused.stderr
    assert load_owner_records(home, signed).recoveries == ()


def test_run_fork_begins_a_run_with_the_model_of_another(
    hypergpud: Hypergpud, home: Path, owned: SignedManifest
) -> None:
    done = hypergpud("run", "fork", "next", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert (result["name"], result["number"]) == ("next", 7)
    signed = kept_manifest(home, bytes.fromhex(result["run"]))
    assert signed is not None
    manifest, me = signed.open(), owned.open().owner
    assert (manifest.name, manifest.owner, manifest.founders) == ("next", me, (me,))
    assert manifest.initial == initial_digest(ANCHOR)
    weights = InitialFile(home, signed.run).load()
    assert weights is not None
    assert np.array_equal(weights, ANCHOR)
    refused = hypergpud("run", "fork", "x" * 65)
    assert refused.returncode == 2
    assert "1 to 64 printable characters" in refused.stderr


def test_run_follow_names_a_certificate_or_none(
    hypergpud: Hypergpud, home: Path, owned: SignedManifest
) -> None:
    for wrong in (("abc",), ("not-hex-digits",), (), ("abcdef", "--none")):
        assert hypergpud("run", "follow", *wrong).returncode == 2
    assert read_followed(home, owned.run) == ""
    done = hypergpud("run", "follow", "ABCDEF12")
    assert done.returncode == 0
    assert read_followed(home, owned.run) == "abcdef12"
    assert hypergpud("run", "follow", "--none").returncode == 0
    assert read_followed(home, owned.run) == ""


@pytest.mark.parametrize(
    "arguments", ["invite --uses 3", f"revoke {FRIEND.peer}"], ids=["invite", "revoke"]
)
def test_owner_command_on_a_full_disk_ends_in_one_sentence(
    arguments: str, home: Path, owned: SignedManifest, environ: dict[str, str]
) -> None:
    """A limit on the size of files imitates a full disk."""
    signer, _ = load_or_make_key(home)
    address = f"/ip4/203.0.113.7/tcp/4001/p2p/{signer.peer}"
    entry = Entry(addresses=(address,), certificate=owned.run)
    make_invitation(home, owned, signer, entry, Terms(), 1_800_000_000.0)
    kept = load_invitations(home, owned.run)
    command = f"ulimit -f 0; exec {sys.executable} -m daemon.cli.main {arguments}"
    done = subprocess.run(
        ["sh", "-c", command],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "The home cannot be written." in done.stderr
    assert "free some disk space, then try again" in done.stderr
    assert load_invitations(home, owned.run) == kept
    assert not load_owner_records(home, owned).revoked
