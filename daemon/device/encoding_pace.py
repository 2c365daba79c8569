"""How fast the encoders are on a device: for `hypergpud bench codecs --device`.

Imports torch, so whoever asks pays for it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from statistics import median
from time import perf_counter

import msgspec
import torch

from daemon.device.encoding import encode
from daemon.device.processor import Device
from daemon.device.settings import WorkerSettings
from protocol.averaging.vector_layout import Vector
from protocol.codec import REFERENCES
from protocol.errors import InvariantBroken


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """One encoder's median, with the device waited for.

    `by` is torch, or fused, which also makes what the encoding lost.
    """

    codec: str
    by: str
    seconds: float


def paces(values: Vector, over: float, device: str, repeat: int) -> tuple[str, list[Pace]]:
    """The device's name and the pace of every encoder that works on it.

    Arranges this process as a worker's.

    Raises `UserError("DEVICE")` for a device that is not here, and `InvariantBroken` for other
    bytes than numpy's.
    """
    place = Device(WorkerSettings(device=device))
    place.claim()
    held = torch.from_numpy(values).to(place.torch)
    encoders = [(name, "torch", lambda name=name: encode(name, held, over)) for name in REFERENCES]
    if place.cuda and importlib.util.find_spec("triton"):
        from daemon.device.fused import encode_with_feedback  # noqa: PLC0415  # not there without CUDA

        encoders += [
            (name, "fused", lambda name=name: encode_with_feedback(name, held, over)[0])
            for name in ("int8", "int4")
        ]
    measured = []
    for name, by, work in encoders:
        if work().cpu().numpy().tobytes() != REFERENCES[name].encode(values, over):
            raise InvariantBroken(
                f"{name} makes other bytes by {by} on {place.name()} than in numpy"
            )
        measured.append(
            Pace(codec=name, by=by, seconds=median([_seconds(work, place) for _ in range(repeat)]))
        )
    return place.name(), measured


def _seconds(work: Callable[[], torch.Tensor], place: Device) -> float:
    place.wait()
    start = perf_counter()
    work()
    place.wait()
    return perf_counter() - start
