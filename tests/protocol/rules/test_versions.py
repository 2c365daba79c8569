"""Versions of the rules: which a manifest names, who may take part, and the message to others."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from protocol.errors import UserError
from protocol.rules.registry import RULE_SETS, rule_set, rules_of
from protocol.rules.versions import (
    CURRENT_RULES,
    FILE_RULES,
    FIRST_RULES,
    KNOWN_RULES,
    RULES_2,
    RULES_4,
    check_rules,
    in_words,
    refusal,
)
from protocol.run.founders import with_founders
from protocol.run.manifest import Inner, Manifest, Outer, SignedManifest, seal
from protocol.run.manifest_file import parse_manifest
from tests.protocol.rounds import people

(OWNER,) = people(1)

PLAIN = Manifest(name="run", task="module:Task")
MINIMAL = 'name = "run"\ntask = "module:Task"\n'


def of_the_first_rules(manifest: Manifest = PLAIN) -> SignedManifest:
    """Return the bytes that programs wrote before manifests named a version."""
    fields = msgspec.msgpack.decode(seal(replace(manifest, rules=RULES_2)).body)
    del fields["rules"]
    return SignedManifest(body=msgspec.msgpack.encode(fields))


def with_fields(plain: Manifest = PLAIN, **more: object) -> SignedManifest:
    fields = {**msgspec.msgpack.decode(seal(plain).body), **more}
    return SignedManifest(body=msgspec.msgpack.encode(fields))


def test_a_new_run_has_the_current_version_and_bytes_without_one_the_first() -> None:
    assert PLAIN.rules == seal(PLAIN).open().rules == CURRENT_RULES
    assert parse_manifest(MINIMAL, "").rules == FILE_RULES
    assert parse_manifest(MINIMAL + 'engine = "hivemind"\n', "").rules == CURRENT_RULES
    assert parse_manifest(MINIMAL, "", rules=RULES_2).rules == RULES_2
    old = of_the_first_rules()
    assert old.open() == replace(PLAIN, rules=FIRST_RULES)
    assert old.run != seal(PLAIN).run
    assert b"rules" not in old.body


def test_another_version_is_another_run() -> None:
    assert parse_manifest(MINIMAL + "rules = 4\n", "").rules == 4
    founded = with_founders(replace(PLAIN, rules=RULES_4), [OWNER.peer])
    runs = [seal(replace(PLAIN, rules=rules)).run for rules in (1, 2, 3)] + [seal(founded).run]
    assert len(set(runs)) == 4


@pytest.mark.parametrize("rules", [0, -1, 1 << 40, "two", None, 2.5])
def test_a_version_that_is_no_small_number_is_refused(rules: object) -> None:
    with pytest.raises(UserError) as error:
        with_fields(rules=rules).open()
    assert error.value.code == "MANIFEST"


def test_a_manifest_of_newer_rules_with_unknown_fields_is_refused_by_its_version() -> None:
    with pytest.raises(UserError) as error:
        with_fields(rules=5, fragments=4).open()
    assert error.value.code == "RULES"
    assert (
        error.value.what
        == "This run uses rules 5; this program knows rules 2, 3 and 4. Upgrade hypergpu."
    )
    assert "fragments" in error.value.why
    with pytest.raises(UserError) as error:
        with_fields(rules=4, fragments=4, founders=[OWNER.peer]).open()
    assert error.value.code == "MANIFEST"
    assert "fragments" in error.value.why


def test_a_manifest_of_newer_rules_with_known_fields_opens() -> None:
    assert with_fields(rules=5, founders=[OWNER.peer]).open().rules == 5


def test_a_run_of_rules_2_keeps_its_bytes_and_its_id() -> None:
    two = Manifest(
        name="run",
        task="module:Task",
        rules=RULES_2,
        codec="float32",
        outer=Outer(learning_rate=0.7, momentum=0.9),
    )
    sealed = seal(two)
    assert sealed.run.hex() == "55cef3437e2d3c36ed795a153a2f655ad2f2e29277d40046413738a0bc33c883"
    assert sealed.open() == two
    assert (two.round.overlap, two.round.min_seconds) == (False, two.round.seconds)


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("round", "overlap", True),
        ("round", "min_seconds", 1.0),
        ("inner", "warmup_samples", 8),
        ("inner", "decay", "constant"),
        ("inner", "total_samples", 0),
        ("inner", "final_factor", 0.1),
        ("outer", "momentum_warmup_samples", 0),
    ],
)
def test_a_run_of_rules_2_has_no_field_of_rules_3(part: str, field: str, value: object) -> None:
    """Other releases that know rules 2 would refuse its bytes."""
    two = replace(PLAIN, rules=RULES_2)
    held = msgspec.msgpack.decode(seal(two).body)[part]
    with pytest.raises(UserError, match=f"rules 2 (do not have {part}.{field}|have no )") as error:
        with_fields(two, **{part: {**held, field: value}}).open()
    assert error.value.code == "MANIFEST"
    shown = str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')
    text = MINIMAL + f"rules = 2\n\n[{part}]\n{field} = {shown}\n"
    with pytest.raises(UserError, match=f"line 6: rules 2 do not have '{part}.{field}'"):
        parse_manifest(text, "")
    assert parse_manifest(text.replace("rules = 2", "rules = 3"), "").rules == CURRENT_RULES


@pytest.mark.parametrize(
    "part",
    [
        {"inner": Inner(warmup_samples=8)},
        {"inner": Inner(decay="linear", total_samples=8)},
        {"outer": Outer(momentum_warmup_samples=8)},
    ],
)
def test_a_run_of_rules_2_has_no_schedule(part: dict[str, Inner | Outer]) -> None:
    with pytest.raises(ValueError, match="rules 2 have no"):
        replace(PLAIN, rules=RULES_2, **part)


def test_who_may_take_part() -> None:
    check_rules(CURRENT_RULES, "abc")
    check_rules(3, "abc", {2, 3})
    for rules, known, words, fix in (
        (
            5,
            KNOWN_RULES,
            "This run uses rules 5; this program knows rules 2, 3 and 4. Upgrade hypergpu.",
            "knows rules 5",
        ),
        (
            5,
            {2, 3},
            "This run uses rules 5; this program knows rules 2 and 3. Upgrade hypergpu.",
            "knows rules 5",
        ),
        (
            1,
            KNOWN_RULES,
            "This run uses rules 1; this program knows rules 2, 3 and 4. "
            "This program only reads such a run.",
            "hypergpud export abc",
        ),
        (
            2,
            {3, 4, 5},
            "This run uses rules 2; this program knows rules 3, 4 and 5. "
            "This program only reads such a run.",
            "export",
        ),
    ):
        with pytest.raises(UserError) as error:
            check_rules(rules, "abc", known)
        assert (error.value.code, error.value.what, error.value.exit_code) == ("RULES", words, 2)
        assert fix in error.value.fix
        assert error.value.why
        assert refusal(rules, known) == words
        with pytest.raises(UserError) as error:
            check_rules(rules, "abc", known, of_home=False)
        assert error.value.what == words
        assert "export" not in error.value.fix


def test_versions_in_words() -> None:
    assert [in_words(versions) for versions in ((), {2}, {3, 2}, {4, 3, 2})] == [
        "no version",
        "2",
        "2 and 3",
        "2, 3 and 4",
    ]


def test_every_version_that_is_known_or_read_has_its_functions() -> None:
    assert set(RULE_SETS) == {FIRST_RULES, *KNOWN_RULES}
    assert all(rules.version == version for version, rules in RULE_SETS.items())
    assert rules_of(PLAIN).version == CURRENT_RULES
    assert rules_of(of_the_first_rules().open()).version == FIRST_RULES


def test_unknown_rules_compute_nothing() -> None:
    for look in (lambda: rule_set(5), lambda: rules_of(replace(PLAIN, rules=5))):
        with pytest.raises(UserError, match="uses rules 5"):
            look()
