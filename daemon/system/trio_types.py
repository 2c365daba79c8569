"""The types of trio that mypy does not find by itself.

py-libp2p installs `trio-typing`, whose stubs mypy prefers to trio's own annotations. They are
older than the pinned trio, and have `TaskStatus` under another name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trio_typing import TaskStatus
else:
    from trio import TaskStatus

__all__ = ["TaskStatus"]
