"""One process alone, and data parallel by gloo, which is the ideal where its network is free."""

from __future__ import annotations

import os
import time

import torch
import torch.distributed

from simulator.bench.allreduce.gloo import free_port
from simulator.bench.training.memory import peak_bytes
from simulator.bench.training.peer_settings import (
    PeerDone,
    PeerListens,
    PeerPipe,
    PeerReady,
    TrainingPeer,
)
from simulator.bench.training.plain_optimizer import inner_optimizer
from simulator.bench.training.plain_training import PlainTrainer


def run(pipe: PeerPipe, settings: TrainingPeer) -> None:
    trainer = PlainTrainer(settings)
    optimizer = inner_optimizer(trainer.model, settings.optimizer)(trainer.parameters)
    address = settings.join or f"{settings.host} {free_port(settings.host)}"
    pipe.say(PeerListens(info=address))
    if settings.peers > 1:
        os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = address.split()
        os.environ["GLOO_SOCKET_IFNAME"] = settings.device
        torch.distributed.init_process_group("gloo", rank=settings.index, world_size=settings.peers)
    pipe.say(PeerReady())
    start = pipe.start()
    time.sleep(max(0.0, start.at_s - time.monotonic()))
    while time.monotonic() < start.until_s:
        if settings.index == 0:
            trainer.snapshot()
        trainer.compute()
        if settings.peers > 1:
            _average_gradients(trainer.parameters, settings.peers)
        trainer.clip()
        optimizer.step()
    pipe.say(PeerDone(memory_bytes={"process": peak_bytes(os.getpid())}))
    pipe.wait_for_end()


def _average_gradients(parameters: list[torch.nn.Parameter], peers: int) -> None:
    """Replace each gradient by its mean over all peers, in one exchange."""
    gradients = [one.grad for one in parameters if one.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    torch.distributed.all_reduce(flat)
    flat /= peers
    start = 0
    for gradient in gradients:
        stop = start + gradient.numel()
        gradient.copy_(flat[start:stop].view(gradient.shape))
        start = stop
