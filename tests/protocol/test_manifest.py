"""The manifest: its content, its signature, and the mistakes of people who write one."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.codec import codec_named
from protocol.errors import UserError
from protocol.identity import Signer
from protocol.rules.versions import RULES_2
from protocol.run.founders import founded_by
from protocol.run.manifest import (
    MAX_MANIFEST_BYTES,
    Group,
    Manifest,
    Outer,
    SignedManifest,
    seal,
)
from protocol.run.manifest_file import load_manifest, parse_manifest
from protocol.run.manifest_versions import encoded
from tests.protocol.rounds import people

OWNER, STRANGER = people(2)
PLAIN = Manifest(name="run", task="module:Task")
OWNED = msgspec.structs.replace(PLAIN, owner=OWNER.peer)
MINIMAL = 'name = "run"\ntask = "module:Task"\n'
RUNS = sorted(Path("configs/runs").glob("*.toml"))


def refused(text: str) -> UserError:
    with pytest.raises(UserError) as error:
        parse_manifest(text, "runs/mine.toml")
    assert error.value.code == "MANIFEST"
    assert error.value.exit_code == 2
    assert "runs/mine.toml" in error.value.what
    return error.value


def test_a_sealed_manifest_opens() -> None:
    assert seal(PLAIN).open() == PLAIN
    assert seal(OWNED, OWNER).open() == OWNED
    assert len(seal(PLAIN).run) == 32


def test_a_file_means_the_defaults_of_its_rules() -> None:
    """Only files have defaults of their own: a manifest travels with all fields."""
    new = parse_manifest(MINIMAL, "")
    assert (new.codec, new.outer) == ("int4", Outer(learning_rate=1.0, momentum=0.0))
    assert replace(new, codec=PLAIN.codec, outer=PLAIN.outer, rules=PLAIN.rules) == PLAIN
    half = parse_manifest(MINIMAL + "[outer]\nmomentum = 0.9\n", "")
    assert half.outer == Outer(learning_rate=1.0, momentum=0.9)
    two = parse_manifest(MINIMAL, "", rules=RULES_2)
    assert (two.codec, two.outer) == ("float32", Outer(learning_rate=0.7, momentum=0.9))
    # hivemind has no int4.
    assert parse_manifest(MINIMAL + 'engine = "hivemind"\n', "").codec == "float32"


def test_another_setting_is_another_run() -> None:
    """The run id covers everything that the members must agree on."""
    runs = {seal(PLAIN).run}
    changes = {
        "seed": 1,
        "codec": "bfloat16",
        "task_options": {"layers": 2},
        "group": Group(min_peers=3),
        "name": "run2",
        "chain": "plumise",
    }
    for name, value in changes.items():
        runs.add(seal(msgspec.structs.replace(PLAIN, **{name: value})).run)
    assert len(runs) == 1 + len(changes)


def test_only_the_owner_seals() -> None:
    for manifest, signer in ((OWNED, None), (OWNED, STRANGER), (PLAIN, OWNER)):
        with pytest.raises(ValueError, match="only the owner that a manifest names"):
            seal(manifest, signer)


@pytest.mark.parametrize(
    "signature",
    [b"", bytes(64), seal(msgspec.structs.replace(PLAIN, owner=STRANGER.peer), STRANGER).signature],
)
def test_a_manifest_that_its_owner_did_not_sign_is_refused(signature: bytes) -> None:
    with pytest.raises(UserError, match="not signed by its owner"):
        SignedManifest(body=seal(OWNED, OWNER).body, signature=signature).open()


def test_an_invalid_owner_is_refused() -> None:
    body = encoded(replace(PLAIN, owner="nobody"), PLAIN.rules)
    with pytest.raises(UserError, match="not signed by its owner nobody"):
        SignedManifest(body=body, signature=bytes(64)).open()


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_changed_bit_is_another_run_and_not_the_owners(place: float, bit: int) -> None:
    sealed = seal(OWNED, OWNER)
    body = bytearray(sealed.body)
    body[int(place * len(body))] ^= 1 << bit
    changed = SignedManifest(body=bytes(body), signature=sealed.signature)
    assert changed.run != sealed.run
    with suppress(UserError):
        assert changed.open().owner != OWNER.peer


@given(
    st.binary(max_size=300)
    | st.sampled_from(
        [b"\x91" * 60_000, b"\x81\xa1x" + b"\x91" * 60_000, bytes(MAX_MANIFEST_BYTES + 1)]
    )
)
def test_noise_is_refused(body: bytes) -> None:
    with pytest.raises(UserError, match="MANIFEST"):
        SignedManifest(body=body).open()


@pytest.mark.parametrize(
    ("text", "near"),
    [
        (MINIMAL + "sed = 3\n", "seed"),
        (MINIMAL + "[outer]\nlearning_rat = 0.7\n", "learning_rate"),
        (MINIMAL + "[group]\nmax_groups = 3\n", "max_group"),
        (MINIMAL + "[round]\nsecond = 3\n", "seconds"),
        (MINIMAL + "[limits]\nmax_carry = 3\n", "max_carry_rounds"),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest(text: str, near: str) -> None:
    assert refused(text).fix == f"did you mean {near!r}?"


def test_a_key_that_resembles_nothing_has_no_advice() -> None:
    error = refused(MINIMAL + "zzzzzz = 3\n")
    assert "zzzzzz" in error.why
    assert error.fix == ""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('name = "run"\n', "task"),
        ('name = ""\ntask = "t"\n', "length"),
        (MINIMAL + "seed = -1\n", "seed"),
        (MINIMAL + "[round]\nseconds = 0\n", "round.seconds"),
        (MINIMAL + "[round]\nseconds = 86401\n", "round.seconds"),
        (MINIMAL + "[round]\nvote_s = -1.0\n", "round.vote_s"),
        (MINIMAL + "[group]\nmin_peers = 1\n", "group.min_peers"),
        (MINIMAL + "[group]\nmax_group = 65\n", "group.max_group"),
        (MINIMAL + "[group]\nmin_peers = 9\nmax_group = 8\n", "max_group 8 is below min_peers 9"),
        (MINIMAL + "[outer]\nmomentum = 1.0\n", "outer.momentum"),
        (MINIMAL + "[inner]\nbatch_size = 0\n", "inner.batch_size"),
        (MINIMAL + "[limits]\nmax_samples = 0\n", "limits.max_samples"),
        (MINIMAL + "[task_options]\nlayers = [1]\n", "task_options"),
        ("name = ", "value"),
    ],
)
def test_values_out_of_bounds_are_named(text: str, why: str) -> None:
    assert why in refused(text).why


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_shipped_runs_are_manifests(path: Path) -> None:
    owner = Signer(bytes(32))
    manifest = founded_by(load_manifest(path), owner.peer)
    codec_named(manifest.codec)
    assert len(seal(manifest, owner if manifest.owner else None).body) < MAX_MANIFEST_BYTES


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(UserError, match="Cannot read the run file"):
            load_manifest(path)
    (tmp_path / "latin.toml").write_bytes(b'name = "caf\xe9"\n')
    with pytest.raises(UserError, match=r"latin\.toml"):
        load_manifest(tmp_path / "latin.toml")


def test_all_mistakes_are_reported_with_their_lines() -> None:
    error = refused('name = "run"\ntask = "t"\nsed = 1\n\n[round]\nsecnds = 3\nvote_s = -1.0\n')
    assert "line 3: unknown setting 'sed'; did you mean 'seed'?" in error.why
    assert "line 6: unknown setting 'round.secnds'; did you mean 'seconds'?" in error.why
    assert "line 7: round.vote_s" in error.why


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (MINIMAL.encode("utf-16"), "UTF-16"),
        (b"x" * (MAX_MANIFEST_BYTES + 1), "more than"),
        ("name = 'ü'\n".encode("latin-1"), "line 1 is not UTF-8"),
    ],
)
def test_a_run_file_that_is_no_manifest_says_what_to_do(
    raw: bytes, why: str, tmp_path: Path
) -> None:
    file = tmp_path / "run.toml"
    file.write_bytes(raw)
    with pytest.raises(UserError) as caught:
        load_manifest(file)
    assert why in caught.value.why


def test_a_run_file_with_a_byte_order_mark_and_line_ends_of_windows_is_read(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_bytes(b"\xef\xbb\xbf" + MINIMAL.replace("\n", "\r\n").encode())
    assert load_manifest(file) == parse_manifest(MINIMAL, "here")
