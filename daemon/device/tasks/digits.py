"""Reads handwritten digits without a download.

These are the 1,797 digits of 8 x 8 pixels that scikit-learn ships, or MNIST's idx files.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from daemon.device.tasks.files import allowed_path
from protocol.errors import UserError

Images = npt.NDArray[np.float32]
"""Shape (count, 1, rows, columns), 0 to 1."""
Labels = npt.NDArray[np.int64]
"""Shape (count,), 0 to 9."""

# The type byte of unsigned bytes (http://yann.lecun.com/exdb/mnist/).
_IDX_UBYTE = 0x08


def sklearn_digits() -> tuple[Images, Labels]:
    """Return the data of `sklearn.datasets.load_digits`, read from the same file.

    Reading it takes milliseconds; importing scikit-learn and scipy takes seconds.
    """
    # This finds the package without importing it.
    spec = find_spec("sklearn")
    places = (
        [
            Path(place) / "datasets" / "data" / "digits.csv.gz"
            for place in (spec.submodule_search_locations or [])
        ]
        if spec
        else []
    )
    for place in places:
        if place.is_file():
            with gzip.open(place, "rt", encoding="ascii") as lines:
                table = np.loadtxt(lines, delimiter=",", dtype=np.float32)
            return (table[:, :-1] / np.float32(16)).reshape(-1, 1, 8, 8), table[:, -1].astype(
                np.int64
            )
    raise UserError(
        "DATA",
        "scikit-learn's digits are not on this machine.",
        fix="pip install scikit-learn, or set the option data to MNIST's files",
        exit_code=2,
    )


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Read an idx file of unsigned bytes, gzipped or not.

    Raises `UserError("DATA")` when it is not one.
    """
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    dimensions = raw[3] if len(raw) >= 4 else 0
    header = 4 + 4 * dimensions
    if raw[:3] != bytes((0, 0, _IDX_UBYTE)) or not 1 <= dimensions <= 3 or len(raw) < header:
        raise UserError("DATA", f"{path} is not an idx file of unsigned bytes.", exit_code=2)
    shape = [int(size) for size in np.frombuffer(raw, dtype=">u4", count=dimensions, offset=4)]
    if len(raw) != header + int(np.prod(shape)):
        raise UserError("DATA", f"{path} is cut off: its header promises {shape}.", exit_code=2)
    return np.frombuffer(raw, dtype=np.uint8, offset=header).reshape(shape)


def mnist(folder: Path) -> tuple[Images, Labels]:
    """Read MNIST's training set in `folder`.

    The files are `train-images-idx3-ubyte[.gz]` and `train-labels-idx1-ubyte[.gz]`.
    """
    parts = []
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        found = [path for path in (folder / name, folder / f"{name}.gz") if path.is_file()]
        if not found:
            raise UserError("DATA", f"There is no {name} or {name}.gz in {folder}.", exit_code=2)
        parts.append(read_idx(found[0]))
    images, labels = parts
    if (
        images.ndim != 3
        or labels.ndim != 1
        or len(images) != len(labels)
        or (len(labels) and labels.max() > 9)
    ):
        raise UserError(
            "DATA",
            f"The files in {folder} do not belong together: {images.shape} images,"
            f" {labels.shape} labels.",
            exit_code=2,
        )
    return images[:, None].astype(np.float32) / np.float32(255), labels.astype(np.int64)


def load_digits(name: str, data_folders: Sequence[str]) -> tuple[Images, Labels]:
    """Load "digits", or a folder with MNIST's files inside `data_folders`.

    Raises `UserError("DATA")`.
    """
    images, labels = (
        sklearn_digits() if name == "digits" else mnist(allowed_path(name, data_folders))
    )
    if not len(labels):
        raise UserError("DATA", f"The data set {name!r} is empty.", exit_code=2)
    return images, labels
