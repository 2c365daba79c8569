"""The error boundary around libp2p, a library that raises anything.

py-libp2p lets parse errors, cipher errors and assertion errors of its dependencies escape for
bytes that a stranger sent, and one escaped exception ends all of its tasks. So its calls are made
inside one of two contexts: `translate_errors` raises `Unreachable` instead, `contain_errors` logs
the error and goes on. Neither touches cancellation.
"""

from __future__ import annotations

import logging
from collections import Counter
from types import TracebackType
from typing import Literal

from protocol.errors import HyperGPUError, Unreachable
from protocol.journal import REFUSALS

_log = logging.getLogger(__name__)


class Refusals:
    """Counts, by reason, of what was refused before a handler saw it."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter(dict.fromkeys(REFUSALS, 0))

    def count(self, reason: str, detail: str = "") -> None:
        """Count a refusal. `reason` is one of `REFUSALS`; `detail` goes to the debug log."""
        if reason not in REFUSALS:
            raise ValueError(f"{reason!r} is not one of REFUSALS")
        self._counts[reason] += 1
        _log.debug("refused (%s): %s", reason, detail)

    def snapshot(self) -> dict[str, int]:
        """The counts now, zeros included."""
        return dict(self._counts)


def _split(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """Split an error into (ordinary failures, what must pass: cancellation and interrupts)."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(Exception)
    if isinstance(error, Exception):
        return error, None
    return None, error


class translate_errors:
    """Raises `Unreachable` for every failure of the library inside the block.

    Our own exceptions and cancellation pass.
    """

    def __init__(self, doing: str) -> None:
        self._doing = doing

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> Literal[False]:
        if error is None or isinstance(error, HyperGPUError):
            return False
        ordinary, other = _split(error)
        if other is not None:
            if ordinary is not None:
                raise other from ordinary
            return False
        raise Unreachable(f"{self._doing}: {_describe(error)}") from error


class contain_errors:
    """Logs every failure inside the block for debugging and goes on; cancellation passes.

    `failed` is the failure, or None.
    """

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self.failed: BaseException | None = None

    def __enter__(self) -> contain_errors:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if error is None:
            return False
        ordinary, other = _split(error)
        if ordinary is not None:
            self.failed = ordinary
            _log.debug("%s: %s", self._doing, _describe(ordinary), exc_info=ordinary)
        if other is not None:
            if ordinary is not None:
                raise other from ordinary
            return False
        return True


def _describe(error: BaseException) -> str:
    """One line about an error, even for exceptions without a message.

    The library wraps exceptions, and the innermost one helps most.
    """
    while (
        inner := error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__
    ) is not None:
        error = inner
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    text = str(error).strip().split("\n", 1)[0][:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
