"""The disk of a node, within what its owner allows."""

from __future__ import annotations

from daemon.config.settings import Config
from daemon.disk.checkpoint_keeping import KeepRules
from daemon.disk.file_disk import FileDisk
from daemon.journal import Journal
from daemon.system.offload import in_thread
from protocol.journal import Warned

# Of what the whole home may hold, this share is for older checkpoints. The newest states, the log
# and the journal need the rest.
OLD_SHARE = 0.5


def node_disk(config: Config, journal: Journal) -> FileDisk:
    """Return the disk of the home. It reports damaged files to the journal."""
    return FileDisk(
        config.home,
        in_thread,
        KeepRules(limit_bytes=keep_bytes(config)),
        report=lambda words: journal.record(Warned(code="DAMAGED", message=words)),
    )


def keep_bytes(config: Config) -> int:
    """Return how much older checkpoints may take."""
    wanted_gb = config.disk.keep_gb
    if config.limits.disk_gb:
        wanted_gb = min(wanted_gb, OLD_SHARE * config.limits.disk_gb)
    return int(1e9 * wanted_gb)
