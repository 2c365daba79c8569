"""Loads the settings in force, and reports all mistakes in them at once.

A flag overrides an environment variable, which overrides the config file. `config show --origin`
shows where each value came from. An unknown key is an error that names the nearest known key: a
person must not believe in a setting that the node ignores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from daemon.config.conversion import convert_setting
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
from daemon.home.layout import CONFIG_FILE, unusable_home, user_path
from protocol.errors import UserError
from protocol.text.nearest import nearest
from protocol.text.toml_document import Lines, key_lines, read_toml, suggestion, toml_text

# The settings fill one page. A larger file is something else.
MAX_CONFIG_BYTES = 1 << 20
# How many mistakes one message shows.
MAX_MISTAKES = 20


class ConfigMistake(msgspec.Struct, frozen=True, kw_only=True):
    """One mistake, as the parts of a `UserError`."""

    what: str
    why: str = ""
    fix: str = ""

    def line(self) -> str:
        """Return all parts on one line, for a list."""
        why = f": {self.why}" if self.why else ""
        return f"{self.what.removesuffix('.')}{why}{f'; {self.fix}' if self.fix else ''}"


class ConfigFile(msgspec.Struct, frozen=True, kw_only=True):
    """A config file's tables, and the line of each key."""

    path: Path
    tables: dict[str, Any] = {}
    lines: Lines = {}

    def at(self, name: str) -> str:
        """Return the file, and the line of the dotted `name` where that is certain."""
        return f"{self.path}:{self.lines[name]}" if name in self.lines else str(self.path)


def load_config(
    home: Path,
    path: Path | None,
    flags: Mapping[str, str | tuple[str, ...]],
    environ: Mapping[str, str],
) -> tuple[Config, dict[str, str]]:
    """Return the settings in force and, for each dotted key, where its value came from.

    Args:
        home: The node's home.
        path: The config file. None means the home's own file, which may be missing.
        flags: Maps dotted keys ("network.listen_port") to a text, or to texts for a list.
        environ: The environment variables.

    Raises:
        UserError: "CONFIG" (exit code 2), with every wrong key and its origin. For an unknown key,
            it names the nearest known key.
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
            value = convert_setting(
                raw, field.type, strict=origin.startswith("file"), secret=dotted in SECRETS
            )
            if dotted in PATHS:
                value = tuple(str(user_path(each, dotted, environ)) for each in value)
            if check := SECTIONS[section].checks.get(key):
                check(value)
            values[section][key] = value
        except UserError as error:
            mistakes.append(_unusable(dotted, origin, error.why, file))
        except ValueError as error:
            mistakes.append(_unusable(dotted, origin, str(error), file))
    if mistakes:
        raise _error_of(mistakes)
    built: dict[str, Section] = {
        section: record(**values[section]) for section, record in SECTIONS.items()
    }
    # SECTIONS pairs each name with its own record.
    return Config(home=home, **built), origins  # type: ignore[arg-type]


def write_default_config(home: Path) -> bool:
    """Write the home's config file, which explains every setting and changes none.

    Returns False when the file exists already. Raises `UserError("HOME")` when it cannot be
    written.
    """
    path = home / CONFIG_FILE
    try:
        return not path.exists() and write_new(path, default_toml().encode())
    except OSError as error:
        raise unusable_home(home, error) from None


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
        # A `ValueError` means that the file is not UTF-8, not TOML, or too large.
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        anew = f"correct it, or let hypergpud start write a new one: mv {path} {path}.old"
        fix = "check the path after --config" if required else anew
        if isinstance(error, PermissionError):
            fix = "run this as the user who owns it"
        raise UserError(
            "CONFIG", f"Cannot read the config file {path}.", why=why, fix=fix, exit_code=2
        ) from None


def _unknown_names(file: ConfigFile, environ: Mapping[str, str]) -> Iterator[ConfigMistake]:
    dotted = [f"{section}.{key}" for section, key, _ in keys()]
    for section, table in file.tables.items():
        if section not in SECTIONS:
            what = f"{file.at(section)}: unknown section or setting {section!r}."
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
                        what=f"{file.at(full)}: unknown setting {key!r} in [{section}].",
                        fix=_meant(full, dotted),
                    )
    variables = [variable(section, key) for section, key, _ in keys()]
    for name in environ:
        if name not in variables and name.startswith(
            tuple(f"{PREFIX}{section.upper()}_" for section in SECTIONS)
        ):
            meant = nearest(name, variables)
            yield ConfigMistake(
                what=f"Unknown environment variable {name}.",
                fix=f"did you mean {meant}?" if meant else f"unset {name}",
            )


def _meant(name: str, known: list[str]) -> str:
    meant = suggestion(name, known)
    return f"did you mean {meant}?" if meant else "hypergpud config show lists them all"


_FLAGS = {
    "node.name": "--name",
    "network.join": "--join",
    "network.listen_port": "--port",
    "worker.device": "--device",
    "observer.host": "--host",
    "observer.port": "--port",
}
"""The options of `start` and `observe` that set a setting."""


def _unusable(name: str, origin: str, why: str, file: ConfigFile) -> ConfigMistake:
    fixes = {
        "flag": "correct it on the command line; --help explains it",
        "environment": f"correct it, or: unset {origin.removeprefix('environment ')}",
        "file": f"correct it in {file.path}, then: hypergpud config check",
    }
    where = f"file {file.at(name)}" if origin.startswith("file") else origin
    if origin == "flag":
        where = _FLAGS.get(name, origin)
    return ConfigMistake(
        what=f"The setting {name} ({where}) cannot be used.",
        why=why,
        fix=fixes[origin.split(maxsplit=1)[0]],
    )


def _error_of(mistakes: list[ConfigMistake]) -> UserError:
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
