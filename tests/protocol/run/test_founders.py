"""Founders and the table of trust: fields of manifests since rules 4."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from protocol.errors import UserError
from protocol.rules.versions import RULES_2, RULES_4
from protocol.run.founders import check_complete, founded_by, missing_for_start, with_founders
from protocol.run.manifest import Admission, Manifest, SignedManifest, Trust, seal
from protocol.run.manifest_file import load_manifest, parse_manifest
from protocol.run.manifest_parts import MAX_FOUNDERS
from tests.protocol.rounds import people

OWNER, FRIEND = people(2)
PLAIN = Manifest(name="run", task="module:Task", rules=RULES_4)
OWNED = replace(PLAIN, owner=OWNER.peer, founders=(OWNER.peer,))
MINIMAL = 'name = "run"\ntask = "module:Task"\n'
FULL = f"""{MINIMAL}rules = 4
owner = "{OWNER.peer}"
founders = ["{FRIEND.peer}", "{OWNER.peer}"]

[admission]
policy = "invite"

[trust]
quorum_grace_s = 90
votes = "worked"
audit = "none"
"""


def test_a_file_names_founders_and_trust(tmp_path: Path) -> None:
    (file := tmp_path / "run.toml").write_text(FULL)
    manifest = load_manifest(file)
    assert manifest.founders == (FRIEND.peer, OWNER.peer)
    assert manifest.trust == Trust(quorum_grace_s=90, votes="worked", audit="none")
    assert manifest.admits == "invite"
    assert seal(manifest, OWNER).open() == manifest


def test_a_file_without_the_fields_has_none_and_cannot_be_sealed() -> None:
    manifest = parse_manifest(MINIMAL + "rules = 4\n", "run.toml")
    assert (manifest.founders, manifest.trust) == ((), Trust())
    with pytest.raises(UserError, match="needs founders") as error:
        seal(manifest)
    assert error.value.code == "MANIFEST"
    assert "hypergpud start --run FILE" in error.value.fix
    with pytest.raises(UserError, match="needs founders"):
        check_complete(manifest)
    assert missing_for_start(with_founders(manifest, [OWNER.peer])) == ""


def test_bytes_without_founders_are_refused() -> None:
    """A peer that sends a manifest of rules 4 cannot leave its founders out."""
    fields = msgspec.msgpack.decode(seal(with_founders(PLAIN, [OWNER.peer])).body)
    for change in ({"founders": []}, {"admission": {"policy": "invite"}}):
        body = msgspec.msgpack.encode({**fields, **change})
        with pytest.raises(UserError, match="MANIFEST"):
            SignedManifest(body=body).open()


@pytest.mark.parametrize("rules", [RULES_2, 3])
@pytest.mark.parametrize(
    ("text", "name"),
    [
        (f'founders = ["{OWNER.peer}"]\n', "founders"),
        ("founders = []\n", "founders"),
        ('[trust]\nvotes = "worked"\n', "trust"),
    ],
)
def test_earlier_rules_have_no_field_of_rules_4(rules: int, text: str, name: str) -> None:
    with pytest.raises(UserError, match=f"line 4: rules {rules} do not have '{name}'"):
        parse_manifest(f"{MINIMAL}rules = {rules}\n{text}", "run.toml")
    assert parse_manifest(f"{MINIMAL}rules = 4\n{text}", "run.toml").rules == RULES_4
    fields = msgspec.msgpack.decode(seal(replace(PLAIN, rules=rules)).body)
    assert not {"founders", "trust"} & fields.keys()
    value = [OWNER.peer] if name == "founders" else {}
    with pytest.raises(UserError, match=f"rules {rules} do not have {name}"):
        SignedManifest(body=msgspec.msgpack.encode({**fields, name: value})).open()


@pytest.mark.parametrize("rules", [RULES_2, 3])
def test_earlier_rules_have_no_invitations(rules: int) -> None:
    text = f'{MINIMAL}rules = {rules}\n\n[admission]\npolicy = "invite"\n'
    with pytest.raises(UserError, match=f'rules {rules} do not have admission.policy = "invite"'):
        parse_manifest(text, "run.toml")
    older = Manifest(name="run", task="module:Task", rules=rules)
    for change in (
        {"founders": (OWNER.peer,)},
        {"trust": Trust(audit="none")},
        {"admission": Admission(policy="invite")},
    ):
        with pytest.raises(ValueError, match=f"rules {rules} do not have"):
            replace(older, **change)
    assert replace(older, owner=OWNER.peer).admits == "open"


def test_a_run_of_rules_3_keeps_its_bytes_and_its_id() -> None:
    three = Manifest(name="run", task="module:Task", rules=3)
    sealed = seal(three)
    assert sealed.run.hex() == "ee9621f931b5e470c74d0e2b50bf8673471e04d7c0de4d3dcbd2efe24504d6f8"
    assert sealed.open() == three
    owned = replace(three, owner=OWNER.peer, admission=Admission(policy="open", min_reputation=5))
    assert (
        seal(owned, OWNER).run.hex()
        == "e489fa23a2c4dcfe819854903bb5cd5569fa6ba052185769e536d0c9380319d3"
    )


def test_admission_follows_the_owner() -> None:
    assert PLAIN.admits == "open"
    assert OWNED.admits == "invite"
    assert replace(OWNED, admission=Admission(policy="open")).admits == "open"


@pytest.mark.parametrize(
    ("founders", "words"),
    [
        ((OWNER.peer, OWNER.peer), "lists a peer twice"),
        (("nobody",), "lists no peer id"),
        ((OWNER.peer[:-1],), "lists no peer id"),
    ],
)
def test_founders_are_peers_once_each(founders: tuple[str, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(PLAIN, founders=founders)
    shown = ", ".join(f'"{founder}"' for founder in founders)
    with pytest.raises(UserError, match=words):
        parse_manifest(f"{MINIMAL}rules = 4\nfounders = [{shown}]\n", "run.toml")


def test_with_founders_fills_only_what_is_missing() -> None:
    several = [person.peer for person in people(MAX_FOUNDERS + 3)]
    assert with_founders(PLAIN, reversed(several)).founders == tuple(several[:MAX_FOUNDERS])
    assert with_founders(OWNED, several) is OWNED
    older = Manifest(name="run", task="module:Task", rules=RULES_2)
    assert with_founders(older, several) is older
    assert founded_by(older, OWNER.peer) is older
    assert founded_by(PLAIN, OWNER.peer) == OWNED
    # A file that names its founders or its owner keeps them.
    assert founded_by(OWNED, FRIEND.peer) is OWNED
    named = replace(PLAIN, owner=FRIEND.peer)
    assert founded_by(named, OWNER.peer).owner == FRIEND.peer


@pytest.mark.parametrize("grace", [0, -1, 1e12])
def test_a_grace_that_nobody_waits_for_is_refused(grace: float) -> None:
    with pytest.raises(UserError, match="quorum_grace_s"):
        parse_manifest(f"{MINIMAL}rules = 4\n\n[trust]\nquorum_grace_s = {grace}\n", "run.toml")
