"""A curve of bounded size: the older it gets, the more evenly it is thinned."""

from __future__ import annotations

from typing import Generic, TypeVar

from protocol.status.run_records import KEPT_POINTS

P = TypeVar("P")


class ThinnedCurve(Generic[P]):
    """Keeps at most `KEPT_POINTS` points of a series, evenly spread. The last one is among them."""

    def __init__(self) -> None:
        self._points: list[P] = []
        self._last: P | None = None
        self._stride = 1
        self._seen = 0

    def add(self, point: P) -> None:
        """Extend the curve.

        When it is full, every second point is dropped, and from then on every second point is kept.
        """
        if self._seen % self._stride == 0:
            # One place belongs to the last point.
            if len(self._points) >= KEPT_POINTS - 1:
                self._points = self._points[::2]
                self._stride *= 2
            if self._seen % self._stride == 0:
                self._points.append(point)
        self._seen += 1
        self._last = point

    def points(self) -> tuple[P, ...]:
        """Return the points, oldest first. The last point added is always among them."""
        if self._last is None or (self._points and self._points[-1] is self._last):
            return tuple(self._points)
        return (*self._points, self._last)
