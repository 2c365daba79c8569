"""Figures by matplotlib, which comes with the extra `hypergpu[plot]`.

No other module imports matplotlib.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from protocol.errors import UserError

SIZE_INCHES = (9.0, 5.0)


def check_matplotlib() -> None:
    """Raises `UserError` with code PLOT where matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError(
            "PLOT",
            "Cannot plot: matplotlib is not installed.",
            fix="pip install 'hypergpu[plot]', or leave out --plot",
            exit_code=2,
        )


def new_figure(title: str, heights: Sequence[float]) -> tuple[Any, list[Any]]:
    """A figure of stacked panels with these relative heights.

    Returns:
        The `matplotlib.figure.Figure` and its `Axes`, from top to bottom.

    Raises:
        UserError: With code PLOT, where matplotlib is not installed.
    """
    check_matplotlib()
    # The extra may be missing, and its import takes half a second.
    from matplotlib.figure import (  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415
        Figure,
    )

    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(len(heights), height_ratios=heights, squeeze=False)
    return figure, [row[0] for row in panels]


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure in the format that the file's name ends with.

    Raises:
        UserError: With code PLOT, for an unknown format or a file that cannot be written.
    """
    try:
        figure.savefig(path)
    except (ValueError, OSError) as error:
        raise UserError(
            "PLOT",
            f"Cannot write the plot to {path}.",
            why=str(error),
            fix="name a file that ends with .svg, .png or .pdf",
            exit_code=2,
        ) from None
