"""`hivemind.Optimizer` in one peer, used as its documentation shows.

The process imports neither libp2p nor trio. Large batch (A) accumulates gradients to the target
batch, averages them and steps; with delayed updates, which hivemind recommends for slow links, it
does both behind the next steps. Local updates (B) step on local gradients, and average parameters
whenever the swarm has accumulated the target batch, behind the next steps too.
"""

from __future__ import annotations

import os
import time
from functools import partial

import hivemind
from hivemind.optim.grad_averager import GradientAverager

from daemon.services.training.hivemind.averager import CODECS
from daemon.services.training.hivemind.hivemind_peer import HivemindPeer
from daemon.services.training.hivemind.settings import PeerSettings
from simulator.bench.training.memory import descendants, peak_bytes
from simulator.bench.training.peer_settings import (
    HivemindRules,
    PeerDone,
    PeerFailed,
    PeerListens,
    PeerPipe,
    PeerReady,
    TrainingPeer,
)
from simulator.bench.training.plain_optimizer import inner_optimizer
from simulator.bench.training.plain_training import PlainTrainer

MEET_S, MEET_PAUSE_S = 30.0, 0.5


def run(pipe: PeerPipe, settings: TrainingPeer) -> None:
    rules = settings.hivemind
    assert rules is not None
    with HivemindPeer(PeerSettings(listen=(f"/ip4/{settings.host}/tcp/0",))) as peer:
        pipe.say(PeerListens(info=" ".join(peer.maddrs)))
        last = time.monotonic() + MEET_S
        while settings.join and not peer.connect(settings.join.split()):
            if time.monotonic() > last:
                pipe.say(PeerFailed(why=f"the first peer did not answer at {settings.join}"))
                return
            time.sleep(MEET_PAUSE_S)
        trainer = PlainTrainer(settings)
        optimizer = _optimizer(settings, rules, trainer, peer.dht)
        pipe.say(PeerReady())
        start = pipe.start()
        time.sleep(max(0.0, start.at_s - time.monotonic()))
        while time.monotonic() < start.until_s:
            trainer.snapshot()
            trainer.compute()
            trainer.clip()
            optimizer.step()
        pids = [os.getpid(), *descendants(os.getpid())]
        pipe.say(PeerDone(memory_bytes={"process": sum(peak_bytes(pid) for pid in pids)}))
        pipe.wait_for_end()


def _optimizer(
    settings: TrainingPeer, rules: HivemindRules, trainer: PlainTrainer, dht: hivemind.DHT
) -> hivemind.Optimizer:
    codec = CODECS[rules.compression]
    local = settings.arm == "hivemind-b"
    delayed = rules.delayed and not local
    return hivemind.Optimizer(
        dht=dht,
        run_id=f"training{settings.seed}",
        target_batch_size=rules.target_batch_size,
        batch_size_per_step=settings.batch_size,
        params=trainer.parameters,
        optimizer=inner_optimizer(trainer.model, settings.optimizer),
        use_local_updates=local,
        matchmaking_time=rules.matchmaking_time,
        averaging_timeout=rules.averaging_timeout,
        delay_optimizer_step=delayed,
        delay_grad_averaging=delayed,
        offload_optimizer=delayed,
        grad_compression=codec(),
        state_averaging_compression=codec(),
        # A group of all peers starts at once. hivemind refuses a gradient averager where it
        # averages no gradients.
        averager_opts={"target_group_size": settings.peers},
        grad_averager_factory=None
        if local
        else partial(GradientAverager, target_group_size=settings.peers),
    )
