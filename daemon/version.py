"""Finds the version of HyperGPU."""

from __future__ import annotations

from importlib import metadata


def version() -> str:
    """Return the installed version, or "0+uninstalled" for sources that are not installed."""

    try:
        return metadata.version("hypergpu")
    except metadata.PackageNotFoundError:
        return "0+uninstalled"
