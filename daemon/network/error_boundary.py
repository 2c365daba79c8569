"""The border to a library that raises anything: what crosses it becomes `Unreachable`, or is
counted and forgotten.

py-libp2p lets parse errors, cipher errors and assertion errors of its dependencies escape for bytes
a stranger sent, and runs its tasks so that one escaped exception ends them all. Its calls are
therefore made inside one of these two contexts. Cancellation is never touched.
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
    """Counts of what was refused before a handler saw it, by reason.

    The reasons are the words of `REFUSALS`, zeros included.
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter(dict.fromkeys(REFUSALS, 0))

    def count(self, reason: str, detail: str = "") -> None:
        if reason not in REFUSALS:
            raise ValueError(f"{reason!r} is no word of REFUSALS")
        self._counts[reason] += 1
        _log.debug("refused (%s): %s", reason, detail)

    def snapshot(self) -> dict[str, int]:
        return dict(self._counts)


def _split(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """(what is an ordinary failure, what must pass: cancellation, interrupts)."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(Exception)
    if isinstance(error, Exception):
        return error, None
    return None, error


class translate_errors:
    """Inside, every failure of the library is raised as `Unreachable`; our own exceptions and
    cancellation pass.
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
        raise Unreachable(f"{self._doing}: {_words(error)}") from error


class contain_errors:
    """Inside, every failure is logged for debugging and forgotten; cancellation passes.

    `failed` tells whether there was one.
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
            _log.debug("%s: %s", self._doing, _words(ordinary), exc_info=ordinary)
        if other is not None:
            if ordinary is not None:
                raise other from ordinary
            return False
        return True


def _words(error: BaseException) -> str:
    """One line that says what it was, also for exceptions without a message.

    The library wraps; what helps is at the bottom of the chain.
    """
    while (
        inner := error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__
    ) is not None:
        error = inner
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    text = str(error).strip().split("\n", 1)[0][:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
