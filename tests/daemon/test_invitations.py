"""Invitations in a home: the owner's list, a friend's proof, and who may start."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from msgspec.structs import replace

from daemon.home.invitations import (
    DAY_S,
    INVITATIONS_FILE,
    Entry,
    MadeInvitation,
    Terms,
    last_addresses,
    load_invitations,
    make_invitation,
    note_uses,
    usual_invitation,
)
from daemon.home.owned_run import last_certificate, owned_run
from daemon.home.recent_state import save_recent_state
from daemon.home.run_membership import (
    PROOF_FILE,
    accept_invitation,
    add_owner_record,
    check_invited,
    check_not_revoked,
    load_own_invitation,
    load_owner_records,
)
from daemon.node.run_choice import choose_run, invitation_in, seal_run
from protocol.digest import digest
from protocol.errors import UserError
from protocol.identity import Signer
from protocol.membership.invitation import open_proof
from protocol.membership.invitation_token import decode_token
from protocol.messages.envelope import sign
from protocol.messages.membership import Revocation
from protocol.run.manifest import Admission, Manifest, SignedManifest, seal

OWNER, FRIEND = Signer(bytes(32)), Signer(bytes([1]) * 32)
SIGNED = seal_run(Manifest(name="run", task="none", rules=4), OWNER)
NOW_S = 1_800_000_000.0
ADDRESS = f"/ip4/203.0.113.7/tcp/4001/p2p/{OWNER.peer}"
MOVED = f"/ip4/198.51.100.2/tcp/4001/p2p/{OWNER.peer}"
ENTRY = Entry(addresses=(ADDRESS,), certificate=digest(b"certificate"))


def made(home: Path, now_s: float = NOW_S, entry: Entry = ENTRY) -> MadeInvitation:
    return usual_invitation(home, SIGNED, OWNER, entry, now_s)


def accept(home: Path, token: str, now_s: float = NOW_S, run: SignedManifest = SIGNED) -> None:
    accept_invitation(home, run, decode_token(token), FRIEND.peer, now_s)


def test_the_usual_invitation_is_repeated_until_it_is_used_revoked_or_expired(
    tmp_path: Path,
) -> None:
    first = made(tmp_path)
    assert made(tmp_path) == first
    note_uses(tmp_path, SIGNED.run, {first.name: 1}, [])
    second = made(tmp_path)
    assert (first.serial, second.serial) == (1, 2)
    note_uses(tmp_path, SIGNED.run, {}, [second.name])
    third = made(tmp_path)
    assert made(tmp_path, NOW_S + 8 * DAY_S).serial == 4
    assert third.serial == 3
    assert len({one.token for one in load_invitations(tmp_path, SIGNED.run).made}) == 4


def test_an_invitation_of_other_terms_is_not_repeated(tmp_path: Path) -> None:
    terms = Terms(uses=3, voters=2, lasts_s=DAY_S)
    big = make_invitation(tmp_path, SIGNED, OWNER, ENTRY, terms, NOW_S)
    assert made(tmp_path).serial == big.serial + 1
    grant = decode_token(big.token).granted()
    assert (grant.uses, grant.voters, grant.expires_s) == (3, 2, NOW_S + DAY_S)
    assert grant.name == big.name


def test_a_repeated_invitation_has_the_present_addresses(tmp_path: Path) -> None:
    first = made(tmp_path)
    moved = made(tmp_path, entry=replace(ENTRY, addresses=(MOVED,)))
    assert decode_token(moved.token).addresses == (MOVED,) == last_addresses(tmp_path, SIGNED.run)
    assert decode_token(moved.token).grant == decode_token(first.token).grant
    assert made(tmp_path, entry=replace(ENTRY, addresses=())) == moved


def test_other_users_cannot_read_the_invitations(tmp_path: Path) -> None:
    made(tmp_path)
    accept(tmp_path, made(tmp_path).token)
    folder = tmp_path / "runs" / SIGNED.run.hex()
    for name in (INVITATIONS_FILE, PROOF_FILE):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    (folder / INVITATIONS_FILE).write_bytes(b"garbage")
    assert load_invitations(tmp_path, SIGNED.run).made == ()


def test_a_friend_keeps_a_proof_and_needs_no_token_again(tmp_path: Path) -> None:
    token = made(tmp_path / "owner").token
    home = tmp_path / "friend"
    with pytest.raises(UserError) as error:
        check_invited(home, SIGNED, FRIEND.peer)
    assert (error.value.code, error.value.exit_code) == ("NOT_INVITED", 2)
    assert "hypergpud start --join INVITATION" in error.value.fix
    accept(home, token)
    check_invited(home, SIGNED, FRIEND.peer)
    own = load_own_invitation(home, SIGNED.run)
    assert open_proof(own.proof, FRIEND.peer, SIGNED.run, OWNER.peer).serial == 1
    assert own.required == ENTRY.certificate
    # Once the home has certificates, its own history counts.
    (home / "runs" / SIGNED.run.hex() / "certificates").write_bytes(b"x")
    assert load_own_invitation(home, SIGNED.run).required is None


def test_a_wrong_invitation_leaves_no_trace(tmp_path: Path) -> None:
    token = made(tmp_path / "owner").token
    home = tmp_path / "friend"
    other = seal_run(Manifest(name="other", task="none", rules=4), OWNER)
    for run, now_s, words in (
        (other, NOW_S, "another run"),
        (SIGNED, NOW_S + 8 * DAY_S, "expired"),
    ):
        with pytest.raises(UserError, match=words):
            accept(home, token, now_s, run)
    assert not home.exists()


def test_who_needs_no_invitation(tmp_path: Path) -> None:
    check_invited(tmp_path, SIGNED, OWNER.peer)
    manifest = replace(SIGNED.open(), founders=(OWNER.peer, FRIEND.peer))
    check_invited(tmp_path, seal(manifest, OWNER), FRIEND.peer)
    opened = replace(SIGNED.open(), admission=Admission(policy="open"))
    check_invited(tmp_path, seal(opened, OWNER), FRIEND.peer)
    check_invited(tmp_path, seal(Manifest(name="run", task="none", rules=3)), FRIEND.peer)


def test_a_revoked_home_does_not_start(tmp_path: Path) -> None:
    check_not_revoked(tmp_path, SIGNED, FRIEND.peer)
    record = sign(OWNER, SIGNED.run, Revocation(subject=FRIEND.peer))
    assert add_owner_record(tmp_path, SIGNED, record)
    assert not add_owner_record(tmp_path, SIGNED, record)
    assert load_owner_records(tmp_path, SIGNED).revoked == {FRIEND.peer}
    with pytest.raises(UserError, match="revoked this node"):
        check_not_revoked(tmp_path, SIGNED, FRIEND.peer)
    check_not_revoked(tmp_path, SIGNED, OWNER.peer)


def test_start_takes_an_invitation_alone(tmp_path: Path) -> None:
    token = usual_invitation(tmp_path, SIGNED, OWNER, ENTRY, 4e9).token
    assert invitation_in((ADDRESS,)) is None
    invitation = invitation_in((token,))
    assert invitation is not None
    with pytest.raises(UserError, match="nothing beside it"):
        invitation_in((token, ADDRESS))
    choice = choose_run(None, (), tmp_path / "new", FRIEND, invitation)
    assert (choice.manifest, choice.join) == (None, (ADDRESS,))
    save_recent_state(tmp_path / "known", SIGNED, 4001)
    assert choose_run(None, (), tmp_path / "known", FRIEND, invitation).manifest == SIGNED
    with pytest.raises(UserError, match=r"--run names 'other\.toml'"):
        choose_run(Path("other.toml"), (), tmp_path, FRIEND, invitation)


def test_a_file_begins_a_run_of_the_node_that_starts_it(tmp_path: Path) -> None:
    """Two people who start the same file make two runs; a second start continues the first."""
    (file := tmp_path / "run.toml").write_text('name = "run"\ntask = "none"\nrules = 4\n')
    runs = [choose_run(file, (), tmp_path / "home", who).manifest for who in (OWNER, FRIEND, OWNER)]
    assert all(run is not None for run in runs)
    assert runs[0] == runs[2] != runs[1]
    manifest = runs[1].open() if runs[1] is not None else None
    assert manifest is not None
    assert manifest.founders == (FRIEND.peer,)
    assert (manifest.owner, manifest.admits) == (FRIEND.peer, "invite")


def test_only_the_owner_of_a_run_of_rules_4_gives_commands(tmp_path: Path) -> None:
    (tmp_path / "node.key").write_bytes(bytes(32))
    (tmp_path / "node.key").chmod(0o600)
    save_recent_state(tmp_path, SIGNED, 4001)
    assert owned_run(tmp_path, None, "invites others").signer.peer == OWNER.peer
    assert last_certificate(tmp_path, SIGNED.run) == SIGNED.run
    (tmp_path / "node.key").write_bytes(bytes([1]) * 32)
    with pytest.raises(UserError, match="Only the owner of the run 'run' invites others"):
        owned_run(tmp_path, None, "invites others")
    save_recent_state(tmp_path, seal(Manifest(name="old", task="none", rules=3)), 4001)
    with pytest.raises(UserError, match="has rules 3"):
        owned_run(tmp_path, None, "invites others")
