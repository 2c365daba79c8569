"""Reads the entry points of an installed distribution from its metadata file.

The file format is that of https://packaging.python.org/specifications/entry-points/.
"""

from __future__ import annotations

import os
import sys


def entry_points(distribution: str, group: str) -> tuple[str, ...]:
    """Return the values of a group's entry points, such as `package.module:NAME`.

    The result is empty if the distribution is not installed or does not declare the group.
    `distribution` is a normalized name. importlib.metadata parses the same file, but its import
    costs 18 ms of CPU time, so it is used only if the file is in no folder of `sys.path`.
    """
    for folder in sys.path:
        text = _metadata_text(folder or ".", distribution)
        if text is not None:
            return _values(text, group)
    from importlib import metadata  # noqa: PLC0415

    try:
        found = metadata.distribution(distribution).entry_points.select(group=group)
    except metadata.PackageNotFoundError:
        return ()
    return tuple(point.value for point in found)


def _metadata_text(folder: str, distribution: str) -> str | None:
    """Return the text of the distribution's entry_points.txt, if it is in `folder`."""
    try:
        names = os.listdir(folder)
    except OSError:
        return None
    for name in names:
        if name.startswith(f"{distribution}-") and name.endswith(".dist-info"):
            try:
                with open(os.path.join(folder, name, "entry_points.txt"), encoding="utf-8") as file:
                    return file.read()
            except (OSError, UnicodeDecodeError):
                return None
    return None


def _values(text: str, group: str) -> tuple[str, ...]:
    values = []
    section = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            section = line.strip("[]")
        elif section == group and "=" in line and not line.startswith(("#", ";")):
            values.append(line.partition("=")[2].replace(" ", ""))
    return tuple(values)
