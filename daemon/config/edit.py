"""Changes one setting in a config file, and keeps the comments and the order of the rest."""

from __future__ import annotations

from pathlib import Path

import tomlkit
import tomlkit.exceptions

from daemon.config.conversion import convert_setting
from daemon.config.loader import load_config
from daemon.config.settings import SECRETS, SECTIONS, keys
from daemon.disk.atomic import write_atomically
from daemon.home.layout import CONFIG_FILE, user_path
from protocol.errors import UserError
from protocol.ports.disk import DiskFull
from protocol.text.toml_document import suggestion


def set_setting(home: Path, path: Path | None, dotted: str, raw: str) -> Path:
    """Write one setting into the config file; return the file.

    Args:
        home: The node's home.
        path: The config file. None means the home's own file, which is made where it is missing.
        dotted: The setting, as "network.listen_port".
        raw: Its value as text, with commas between the parts of a list.

    Raises:
        UserError: "CONFIG" (exit code 2) for an unknown setting, a value that does not fit, or a
            file that has mistakes already. The file is then unchanged. Also where the file
            cannot be written.
    """
    section, key = _known(dotted)
    kind = next(field.type for name, known, field in keys() if (name, known) == (section, key))
    try:
        value = convert_setting(raw, kind, strict=False, secret=dotted in SECRETS)
        if check := SECTIONS[section].checks.get(key):
            check(value)
    except (ValueError, UserError) as error:
        why = error.why if isinstance(error, UserError) else str(error)
        raise UserError(
            "CONFIG", f"The setting {dotted} cannot be used.", why=why, exit_code=2
        ) from None
    return _edit(home, path, section, key, list(value) if isinstance(value, tuple) else value)


def unset_setting(home: Path, path: Path | None, dotted: str) -> Path:
    """Remove one setting from the config file, so that its default counts; return the file.

    Raises as `set_setting`.
    """
    return _edit(home, path, *_known(dotted), None)


def _known(dotted: str) -> tuple[str, str]:
    names = [f"{section}.{key}" for section, key, _ in keys()]
    if dotted not in names:
        meant = suggestion(dotted, names)
        raise UserError(
            "CONFIG",
            f"Unknown setting {dotted!r}.",
            fix=f"did you mean {meant}?" if meant else "hypergpud config show lists them all",
            exit_code=2,
        )
    section, _, key = dotted.partition(".")
    return section, key


def _edit(home: Path, path: Path | None, section: str, key: str, value: object) -> Path:
    # The file must be right before: an edit must not look like the cause of an older mistake.
    load_config(home, path, {}, {})
    file = path or user_path(str(home / CONFIG_FILE), "--home")
    try:
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        document = tomlkit.parse(text)
        table = document.setdefault(section, tomlkit.table())
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value
        # A link stays: the file behind it is replaced.
        write_atomically(file.resolve(), [memoryview(tomlkit.dumps(document).encode())])
    except (OSError, DiskFull, tomlkit.exceptions.TOMLKitError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UserError(
            "CONFIG",
            f"Cannot change the config file {file}.",
            why=why,
            fix="edit it by hand, or check who owns it",
            exit_code=2,
        ) from None
    return file
