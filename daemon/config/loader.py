"""The settings in force: flags, environment and TOML, in that order of strength, with every mistake
found at once.

A value's origin is kept, so that `config show --origin` can say why it is what it is. Unknown keys
are errors that name the nearest known one: a setting that is silently ignored is worse than none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from daemon.config.settings import (
    PATHS,
    PREFIX,
    SECRETS,
    SECTIONS,
    Config,
    Section,
    default_toml,
    keys,
    variable,
)
from daemon.disk.new_file import write_new
from daemon.home.layout import CONFIG_FILE, is_unicode, unusable_home, user_path
from protocol.errors import UserError
from protocol.text.nearest import nearest
from protocol.text.toml_document import Lines, key_lines, read_toml, suggestion, toml_text

# A page of settings; a file above this is not one.
MAX_CONFIG_BYTES = 1 << 20
MAX_MISTAKES = 20  # shown at once


class ConfigMistake(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong, as the parts of a `UserError`."""

    what: str
    why: str = ""
    fix: str = ""

    def line(self) -> str:
        """All of it in one sentence, for a list."""
        return " ".join(
            part for part in (self.what, f"{self.why}." if self.why else "", self.fix) if part
        )


class ConfigFile(msgspec.Struct, frozen=True, kw_only=True):
    """A config file as it was read."""

    path: Path
    tables: dict[str, Any] = {}
    lines: Lines = {}

    def at(self, name: str) -> str:
        """The file, and the line of the dotted `name` where that is certain."""
        return f"{self.path}:{self.lines[name]}" if name in self.lines else str(self.path)


def load_config(
    home: Path,
    path: Path | None,
    flags: Mapping[str, str | tuple[str, ...]],
    environ: Mapping[str, str],
) -> tuple[Config, dict[str, str]]:
    """The settings in force and, for each dotted key, where its value came from.

    `flags` maps dotted keys ("network.listen_port") to text, or for lists to texts. `path` None
    means the home's own file, which may be missing. Raises `UserError("CONFIG")` (exit code 2) that
    names every key that is wrong, its origin and, for an unknown key, the nearest known.
    """
    file = _read(path or home / CONFIG_FILE, required=path is not None)
    mistakes = list(_unknown_names(file, environ))
    origins: dict[str, str] = {}
    values: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for section, key, field in keys():
        dotted, name = f"{section}.{key}", variable(section, key)
        table = file.tables.get(section, {})
        if dotted in flags:
            raw, origin = flags[dotted], "flag"
        elif name in environ:
            raw, origin = environ[name], f"environment {name}"
        elif isinstance(table, dict) and key in table:
            raw, origin = table[key], f"file {file.path}"
        else:
            origins[dotted] = "default"
            continue
        origins[dotted] = origin
        try:
            value = _converted(
                raw, field.type, strict=origin.startswith("file"), secret=dotted in SECRETS
            )
            if dotted in PATHS:
                value = tuple(str(user_path(each, dotted, environ)) for each in value)
            if check := SECTIONS[section].checks.get(key):
                check(value)
            values[section][key] = value
        except UserError as error:
            mistakes.append(_unusable(dotted, origin, error.why, file))
        except (msgspec.ValidationError, ValueError) as error:
            mistakes.append(_unusable(dotted, origin, str(error), file))
    if mistakes:
        raise _told(mistakes)
    built: dict[str, Section] = {
        section: record(**values[section]) for section, record in SECTIONS.items()
    }
    return Config(home=home, **built), origins  # type: ignore[arg-type]  # SECTIONS pairs each name with its own record


def write_default_config(home: Path) -> bool:
    """Write the home's config file with every setting explained and left at its default.

    False when there is one already.

    Raises `UserError("HOME")` where it cannot be written.
    """
    path = home / CONFIG_FILE
    try:
        return not path.exists() and write_new(path, default_toml().encode())
    except OSError as error:
        raise unusable_home(home, error) from None


def _converted(raw: Any, kind: Any, *, strict: bool, secret: bool) -> Any:
    """Raises `ValueError`, of which msgspec's own is one."""
    if kind == tuple[str, ...] and isinstance(raw, str):
        if strict:
            shown = "..." if secret else raw
            raise ValueError(f"it is a list: write [{msgspec.json.encode(shown).decode()}]")
        raw = tuple(part.strip() for part in raw.split(",") if part.strip())
    if any(
        not is_unicode(text)
        for text in (raw if isinstance(raw, tuple | list) else [raw])
        if isinstance(text, str)
    ):
        raise ValueError("it is not UTF-8 text")
    return msgspec.convert(raw, kind, strict=strict)


def _read(path: Path, *, required: bool) -> ConfigFile:
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_CONFIG_BYTES + 1)
        if len(raw) > MAX_CONFIG_BYTES:
            raise ValueError(f"it has more than {MAX_CONFIG_BYTES} bytes")
        text = toml_text(raw)
        return ConfigFile(path=path, tables=read_toml(text), lines=key_lines(text))
    except FileNotFoundError:
        if required:
            raise UserError(
                "CONFIG",
                f"There is no config file {path}.",
                fix="check the path after --config",
                exit_code=2,
            ) from None
        return ConfigFile(path=path)
    except (OSError, ValueError) as error:
        # ValueError: not UTF-8, not TOML, too large.
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        anew = f"mend it, or let hypergpud start write a new one: mv {path} {path}.old"
        fix = "check the path after --config" if required else anew
        if isinstance(error, PermissionError):
            fix = "run this as the user whom it belongs to"
        raise UserError(
            "CONFIG", f"Cannot read the config file {path}.", why=why, fix=fix, exit_code=2
        ) from None


def _unknown_names(file: ConfigFile, environ: Mapping[str, str]) -> Iterator[ConfigMistake]:
    dotted = [f"{section}.{key}" for section, key, _ in keys()]
    for section, table in file.tables.items():
        if section not in SECTIONS:
            what = f"{file.at(section)}: there is no section or setting {section!r}."
            yield ConfigMistake(what=what, fix=_meant(section, [*SECTIONS, *dotted]))
        elif not isinstance(table, dict):
            yield ConfigMistake(
                what=f"{file.at(section)}: {section!r} is a section, not a setting.",
                fix=f"write it as [{section}]",
            )
        else:
            for key in table:
                full = f"{section}.{key}"
                if full not in dotted:
                    yield ConfigMistake(
                        what=f"{file.at(full)}: there is no setting {key!r} in [{section}].",
                        fix=_meant(full, dotted),
                    )
    variables = [variable(section, key) for section, key, _ in keys()]
    for name in environ:
        if name not in variables and name.startswith(
            tuple(f"{PREFIX}{section.upper()}_" for section in SECTIONS)
        ):
            meant = nearest(name, variables)
            yield ConfigMistake(
                what=f"There is no setting behind the environment variable {name}.",
                fix=f"did you mean {meant}?" if meant else f"unset {name}",
            )


def _meant(name: str, known: list[str]) -> str:
    meant = suggestion(name, known)
    return f"did you mean {meant}?" if meant else "hypergpud config show lists them all"


def _unusable(name: str, origin: str, why: str, file: ConfigFile) -> ConfigMistake:
    fixes = {
        "flag": "correct it on the command line; --help says what it takes",
        "environment": f"correct it, or: unset {origin.removeprefix('environment ')}",
        "file": f"correct it in {file.path}, then: hypergpud config check",
    }
    where = f"file {file.at(name)}" if origin.startswith("file") else origin
    return ConfigMistake(
        what=f"The setting {name} ({where}) cannot be used.",
        why=why,
        fix=fixes[origin.split(maxsplit=1)[0]],
    )


def _told(mistakes: list[ConfigMistake]) -> UserError:
    if len(mistakes) == 1:
        return UserError(
            "CONFIG", mistakes[0].what, why=mistakes[0].why, fix=mistakes[0].fix, exit_code=2
        )
    shown = [mistake.line() for mistake in mistakes[:MAX_MISTAKES]]
    if len(mistakes) > MAX_MISTAKES:
        shown.append(f"and {len(mistakes) - MAX_MISTAKES} more")
    return UserError(
        "CONFIG",
        f"{len(mistakes)} settings cannot be used.",
        why="\n       ".join(shown),
        fix="correct each, then: hypergpud config check",
        exit_code=2,
    )
