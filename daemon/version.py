"""Which HyperGPU this is."""

from __future__ import annotations

from importlib import metadata


def version() -> str:
    """The installed version, or that the sources run without having been installed."""
    try:
        return metadata.version("hypergpu")
    except metadata.PackageNotFoundError:
        return "0+uninstalled"
