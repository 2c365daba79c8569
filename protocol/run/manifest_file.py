"""Manifests in TOML files."""

from __future__ import annotations

from pathlib import Path

import msgspec

from protocol.errors import UserError
from protocol.rules.versions import CURRENT_RULES, FILE_RULES
from protocol.run.manifest import MAX_MANIFEST_BYTES, Manifest
from protocol.run.manifest_versions import later_fields, with_defaults
from protocol.text.toml_document import (
    TomlMistake,
    key_lines,
    mistakes_in,
    place,
    read_toml,
    toml_text,
)


def parse_manifest(text: str, where: str, *, rules: int = FILE_RULES) -> Manifest:
    """Parse a manifest from TOML. `rules` is the version of a text that names none.

    Raises `UserError("MANIFEST")` that names every wrong key and the nearest known one.
    """
    try:
        tables, lines = read_toml(text), key_lines(text)
        if rules == FILE_RULES and tables.get("engine") == "hivemind":
            rules = CURRENT_RULES
        if isinstance(named := tables.setdefault("rules", rules), int):
            rules = named
        tables = with_defaults(tables, rules)
        mistakes = [
            TomlMistake(why=f"{place(lines, name)}rules {rules} do not have {name!r}")
            for name in later_fields(tables, rules)
        ] or mistakes_in(tables, Manifest, lines)
        if not mistakes:
            return msgspec.convert(tables, Manifest)
    except ValueError as error:
        raise UserError(
            "MANIFEST", f"{where} is not a run manifest.", why=str(error), exit_code=2
        ) from None
    fix = "correct each of them"
    why = "\n       ".join(mistake.line() for mistake in mistakes)
    if len(mistakes) == 1:
        why, meant = mistakes[0].why, mistakes[0].meant
        fix = f"did you mean {meant!r}?" if meant else ""
    raise UserError("MANIFEST", f"{where} is not a run manifest.", why=why, fix=fix, exit_code=2)


def names_rules(path: Path) -> bool:
    """Return whether a file that `load_manifest` has read names the version of the rules."""
    return "rules" in read_toml(toml_text(path.read_bytes()))


def load_manifest(path: Path, *, rules: int = FILE_RULES) -> Manifest:
    """Read a TOML manifest from a file; see `parse_manifest`. Raises `UserError("MANIFEST")`."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_MANIFEST_BYTES + 1)
        if len(raw) > MAX_MANIFEST_BYTES:
            raise ValueError(f"it has more than {MAX_MANIFEST_BYTES} bytes")
        text = toml_text(raw)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UserError(
            "MANIFEST",
            f"Cannot read the run file {path}.",
            why=why,
            fix="check the path after --run",
            exit_code=2,
        ) from None
    return parse_manifest(text, str(path), rules=rules)
