"""gloo through torch.distributed: the fastest this hardware allows.

It has no encryption and no authentication, and when a peer dies, no peer survives.
"""

from __future__ import annotations

import os
import socket

import numpy as np
import torch
import torch.distributed

from protocol.averaging.vector_layout import Vector
from simulator.bench.allreduce.driver import CommandPipe, DriverSettings, at_once, serve
from simulator.bench.allreduce.wire import Command


class GlooDriver:
    """gloo in one peer."""

    def __init__(self, settings: DriverSettings) -> None:
        self._settings = settings
        self._mean: Vector = np.empty(settings.elements, np.float32)

    async def info(self) -> str:
        return f"{self._settings.host} {free_port(self._settings.host)}"

    async def meet(self, infos: tuple[str, ...]) -> None:
        os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = infos[0].split()
        os.environ["GLOO_SOCKET_IFNAME"] = self._settings.device
        torch.set_num_threads(1)
        torch.distributed.init_process_group(
            "gloo", rank=self._settings.index, world_size=self._settings.peers
        )

    async def prepare(self, number: int, vector: Vector) -> None:
        self._vector = vector
        self._mean[:] = np.nan

    async def average(self) -> None:
        self._mean[:] = self._vector
        tensor = torch.from_numpy(self._mean)
        torch.distributed.all_reduce(tensor)
        tensor /= self._settings.peers

    async def result(self) -> Vector:
        return self._mean


def free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def run(pipe: CommandPipe, settings: DriverSettings) -> None:
    async def following() -> Command | None:
        return pipe.next()

    at_once(serve(pipe, settings, GlooDriver(settings), following))
    torch.distributed.destroy_process_group()
