"""Versions of the rules: which a manifest names, who may take part, and the message to others."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from protocol.errors import UserError
from protocol.rules.registry import RULE_SETS, rule_set, rules_of
from protocol.rules.versions import (
    CURRENT_RULES,
    FIRST_RULES,
    KNOWN_RULES,
    check_rules,
    in_words,
    refusal,
)
from protocol.run.manifest import Manifest, SignedManifest, parse_manifest, seal

PLAIN = Manifest(name="run", task="module:Task")
MINIMAL = 'name = "run"\ntask = "module:Task"\n'


def of_the_first_rules(manifest: Manifest = PLAIN) -> SignedManifest:
    """Return the bytes that programs wrote before manifests named a version."""
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(manifest))
    del fields["rules"]
    return SignedManifest(body=msgspec.msgpack.encode(fields))


def with_fields(**more: object) -> SignedManifest:
    return SignedManifest(
        body=msgspec.msgpack.encode(
            {**msgspec.msgpack.decode(msgspec.msgpack.encode(PLAIN)), **more}
        )
    )


def test_a_new_run_has_the_current_version_and_bytes_without_one_the_first() -> None:
    assert (
        PLAIN.rules
        == parse_manifest(MINIMAL, "").rules
        == seal(PLAIN).open().rules
        == CURRENT_RULES
    )
    old = of_the_first_rules()
    assert old.open() == replace(PLAIN, rules=FIRST_RULES)
    assert old.run != seal(PLAIN).run
    assert b"rules" not in old.body


def test_another_version_is_another_run() -> None:
    assert parse_manifest(MINIMAL + "rules = 3\n", "").rules == 3
    assert len({seal(replace(PLAIN, rules=rules)).run for rules in (1, 2, 3)}) == 3


@pytest.mark.parametrize("rules", [0, -1, 1 << 40, "two", None, 2.5])
def test_a_version_that_is_no_small_number_is_refused(rules: object) -> None:
    with pytest.raises(UserError) as error:
        with_fields(rules=rules).open()
    assert error.value.code == "MANIFEST"


def test_a_manifest_of_newer_rules_with_unknown_fields_is_refused_by_its_version() -> None:
    with pytest.raises(UserError) as error:
        with_fields(rules=3, fragments=4).open()
    assert error.value.code == "RULES"
    assert (
        error.value.what == "This run uses rules 3; this program knows rules 2. Upgrade hypergpu."
    )
    assert "fragments" in error.value.why
    with pytest.raises(UserError) as error:
        with_fields(rules=2, fragments=4).open()
    assert error.value.code == "MANIFEST"


def test_a_manifest_of_newer_rules_with_known_fields_opens() -> None:
    assert with_fields(rules=3).open().rules == 3


def test_who_may_take_part() -> None:
    check_rules(CURRENT_RULES, "abc")
    check_rules(3, "abc", {2, 3})
    for rules, known, words, fix in (
        (
            3,
            KNOWN_RULES,
            "This run uses rules 3; this program knows rules 2. Upgrade hypergpu.",
            "knows rules 3",
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
            "This run uses rules 1; this program knows rules 2. "
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
    assert rules_of(PLAIN).version == max(KNOWN_RULES) == CURRENT_RULES
    assert rules_of(of_the_first_rules().open()).version == FIRST_RULES


def test_unknown_rules_compute_nothing() -> None:
    for look in (lambda: rule_set(3), lambda: rules_of(replace(PLAIN, rules=3))):
        with pytest.raises(UserError, match="uses rules 3"):
            look()
