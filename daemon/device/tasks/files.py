"""Decides which files of this machine a task may read.

A stranger may have written the manifest. If it could name any path, a run could train a model on a
volunteer's private files, and receive them as parameters. A path in a manifest must therefore be
inside the folders that the node's owner has listed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from protocol.errors import UserError


def allowed_path(wanted: str, data_folders: Sequence[str]) -> Path:
    """Return the path of `wanted`: absolute and inside a data folder, or relative to one.

    Raises `UserError("DATA")`.
    """
    for folder in data_folders:
        root = Path(folder).expanduser().resolve()
        # An absolute `wanted` replaces `root`. Links are resolved before the check.
        found = (root / Path(wanted).expanduser()).resolve()
        if found.is_relative_to(root) and found.exists():
            return found
    listed = ", ".join(data_folders)
    raise UserError(
        "DATA",
        f"The run wants to read {wanted!r}, which is not in the folders this node lets runs read.",
        why=f"the folders are {listed}"
        if listed
        else "no folder is listed, and a run's manifest comes from somebody else",
        fix='if you trust this run, add the folder: [worker] data_folders = ["/path/to/data"]',
        exit_code=2,
    )
