"""TOML files that people write: every mistake at once, with its line and the nearest known name.

`toml_text` accepts what editors add (a byte order mark, line ends of Windows) and names what it
cannot read (UTF-16, other encodings). `mistakes_in` compares the tables with the records that they
become.
"""

from __future__ import annotations

import codecs
import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any, get_args

import msgspec

from protocol.text.nearest import nearest

_HEADER = re.compile(r"\s*\[\s*([\w-]+)\s*\]\s*(#.*)?")
_KEY = re.compile(r"""\s*["']?([\w-]+)["']?\s*(?:\.\s*["']?([\w-]+)["']?\s*)?=""")
_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
Lines = Mapping[str, int]
"""The line of each key, by its dotted name, without keys whose line is not certain."""


def toml_text(raw: bytes) -> str:
    """Return the text of a file. Raises `ValueError` that says what to do if it is not UTF-8."""
    if raw.startswith(_WIDE) or b"\0" in raw[:4]:
        raise ValueError("it is UTF-16 text; save it as UTF-8")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is not UTF-8 text; save the file as UTF-8") from None


def read_toml(text: str) -> dict[str, Any]:
    """Return the tables of a document. Raises `ValueError`."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None


def key_lines(text: str) -> Lines:
    """Return the line, from 1, of each key of the document and of its tables.

    Tables within tables are not searched.
    """
    found: dict[str, int] = {}
    twice: set[str] = set()
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.fullmatch(line):
            section = header[1]
            names = [section]
        elif key := _KEY.match(line):
            full = ".".join(part for part in (section, key[1], key[2]) if part)
            names = [full] if section or not key[2] else [key[1], full]
        else:
            continue
        for name in names:
            if name in found:
                twice.add(name)
            found[name] = number
    # A name that occurs twice may be inside a string of several lines: its line is not certain.
    return {name: number for name, number in found.items() if name not in twice}


class TomlMistake(msgspec.Struct, frozen=True, kw_only=True):
    """One mistake, and the name that was meant if one is near."""

    why: str
    meant: str = ""

    def line(self) -> str:
        """Return the mistake as one sentence."""
        return f"{self.why}; did you mean {self.meant!r}?" if self.meant else self.why


def mistakes_in(
    tables: Mapping[str, Any], record: type[msgspec.Struct], lines: Lines
) -> list[TomlMistake]:
    """Return each reason why `tables` do not become a `record`; none if they do."""
    found = list(_mistakes(tables, record, lines, list(_names(record)), ""))
    if not found:
        # Some rules concern the record as a whole.
        try:
            msgspec.convert(tables, record)
        except (msgspec.ValidationError, ValueError) as error:
            found.append(TomlMistake(why=str(error)))
    return found


def _mistakes(
    tables: Mapping[str, Any],
    record: type[msgspec.Struct],
    lines: Lines,
    known: list[str],
    prefix: str,
) -> Iterable[TomlMistake]:
    fields = {field.name: field for field in msgspec.structs.fields(record)}
    for key in tables:
        if key not in fields:
            name = f"{prefix}{key}"
            meant = suggestion(name, known)
            # A key is written without its own table's name.
            own = (
                meant.removeprefix(prefix)
                if meant.rpartition(".")[0] == prefix.rstrip(".")
                else meant
            )
            yield TomlMistake(why=f"{place(lines, name)}unknown setting {name!r}", meant=own)
    for name, field in fields.items():
        full = f"{prefix}{name}"
        if name not in tables:
            if field.required:
                yield TomlMistake(why=f"{full} is missing")
            continue
        part = _record_of(field.type)
        if part is not None and isinstance(tables[name], dict):
            yield from _mistakes(tables[name], part, lines, known, f"{full}.")
            continue
        try:
            msgspec.convert(tables[name], field.type)
        except (msgspec.ValidationError, ValueError) as error:
            yield TomlMistake(why=f"{place(lines, full)}{full}: {error}")


def place(lines: Lines, name: str) -> str:
    """Return `line 4: `, or nothing if the line is not certain."""
    return f"line {lines[name]}: " if name in lines else ""


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return the dotted name that was most likely meant, or nothing."""
    known = list(known)
    own = name.rpartition(".")[2]
    # First the right key in the wrong table, then a typing error in the whole name, then a typing
    # error in the key alone.
    same = [full for full in known if full.rpartition(".")[2] == own]
    meant = (same[0] if same else "") or nearest(name, known)
    if not meant:
        by_own = {full.rpartition(".")[2]: full for full in reversed(known)}
        meant = by_own.get(nearest(own, by_own), "")
    return meant


def _record_of(kind: Any) -> type[msgspec.Struct] | None:
    """Return the record in a field's type, which may be optional."""
    for part in (kind, *get_args(kind)):
        if isinstance(part, type) and issubclass(part, msgspec.Struct):
            return part
    return None


def _names(record: type[msgspec.Struct], prefix: str = "") -> Iterable[str]:
    for field in msgspec.structs.fields(record):
        yield f"{prefix}{field.name}"
        part = _record_of(field.type)
        if part is not None:
            yield from _names(part, f"{prefix}{field.name}.")
