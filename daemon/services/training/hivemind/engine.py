"""The hivemind engine trains until the round ends, averages by hivemind, and applies the mean.

    train ──clock──▶ ready (matchmaking) ──▶ reduce (all-reduce) ──▶ adopt (outer step) ──▶ train
      ▲                │ no group               │ failed or partial      │
      └────────────────┴── the work is kept ────┘       fetch ◀── most members hold another anchor

It replaces the round machine completely. There is no plan, no inclusion and no vote: no round is
certified or paid. Two members may hold different anchors until one of them notices. Membership is
HyperGPU's own: beacons, peers and the observer treat these nodes like any others.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import trio

from daemon.services.service import ServiceContext
from daemon.services.training.genesis import genesis_parameters
from daemon.services.training.hivemind import policy
from daemon.services.training.hivemind.member_state import MemberState
from daemon.services.training.hivemind.peer_discovery import connect_members, serve_addresses
from daemon.services.training.hivemind.process import HivemindProcess
from daemon.services.training.hivemind.round_runner import RoundRunner
from daemon.services.training.hivemind.settings import PeerSettings
from daemon.services.training.hivemind.state_exchange import StateExchange
from daemon.services.training.hivemind.trainer_driver import TrainerDriver
from daemon.swarm.chain_sync import ChainReply, serve_chain
from daemon.swarm.follower import Follower, FollowerHooks
from daemon.swarm.lineage import Lineage
from daemon.swarm.manifest_exchange import serve_manifest
from daemon.swarm.members import Members
from daemon.swarm.messenger import Messenger
from daemon.swarm.task_agreement import serve_task
from daemon.swarm.training_speed import RecentTrainingSpeed
from daemon.system.trio_types import TaskStatus
from protocol.errors import UserError
from protocol.identity import PeerId
from protocol.journal import InputRefused, PhaseEntered, Warned
from protocol.messages.base import Signed
from protocol.messages.beacon import Beacon
from protocol.messages.envelope import AnyMessage
from protocol.ports.network import Network
from protocol.ports.trainer import TaskInfo, Trainer


class HivemindEngine:
    """A node's part in a run of `engine = "hivemind"`. Satisfies `Engine`."""

    def __init__(
        self,
        context: ServiceContext,
        network: Network,
        trainer: Trainer,
        peer: PeerSettings,
        *,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        """Register the protocols on `network`, which has not started.

        `wall_s` returns unix seconds: rounds end by the wall clock.

        Raises `UserError` for a run that hivemind cannot do.
        """
        self._manifest = context.manifest.open()
        policy.check_manifest(self._manifest)
        self._context, self._network, self._trainer = context, network, trainer
        self._run, self._peer, self._wall_s = context.manifest.run, peer, wall_s
        self._record = context.record
        self._members = Members(context.signer.peer, self._record, lambda _endpoint: None)
        self._messenger = Messenger(network, self._run, self._deliver, self._refuse)
        self._follower = Follower(
            network=network,
            run=self._run,
            signer=context.signer,
            lineage=Lineage(self._run, self._manifest),
            members=self._members,
            refuse=self._refuse,
            hooks=FollowerHooks(
                on_entries=lambda _entries: None,
                on_members=lambda: None,
                on_gone=lambda _peer: None,
                beacon=self._beacon,
                send=self._messenger.send,
            ),
        )
        self._settings = policy.averager_settings(self._run, self._manifest)
        self._process: HivemindProcess | None = None
        self._info: TaskInfo | None = None
        self._state: MemberState | None = None
        self._phase = "starting"
        self._speed = RecentTrainingSpeed(trainer)
        self._finish = trio.Event()
        serve_chain(network, self._run, self._no_chain)
        serve_manifest(network, context.manifest, self._refuse, self._record)
        serve_task(network, lambda: self._members.tasks.ours)
        serve_addresses(
            network, lambda: self._process.maddrs if self._process and self._process.is_up else ()
        )

    async def hold(self, held: bool) -> None:
        """Refuse to pause: a group of hivemind waits for each of its peers."""
        if held:
            raise UserError(
                "ENGINE",
                "A hivemind run cannot pause.",
                why="every round waits for all peers of its group",
                fix="hypergpud stop; a later start continues from the checkpoint",
            )

    def finish(self) -> None:
        """Make what was learned durable and return from `run`."""
        self._finish.set()

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled or finished; started when training has begun."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._messenger.run)
            self._info = info = await self._trainer.describe()
            self._members.tasks.begin(info.task)
            self._members.compare_again()
            self._state = state = MemberState(
                run=self._run,
                manifest=self._manifest,
                info=info,
                disk=self._context.disk,
                offload=self._context.offload,
                genesis=lambda: genesis_parameters(
                    self._trainer, info, self._manifest.seed, self._context.offload
                ),
            )
            origin = await state.load()
            self._process = process = HivemindProcess(
                self._peer, self._settings, info.parameters, self._process_ended
            )
            await nursery.start(self._follower.run)
            async with process.running():
                await process.up()
                nursery.start_soon(
                    connect_members, self._network, process, self._live_members, self._refuse
                )
                exchange = StateExchange(process, state, self._record, self._enter, self._finish)
                if self._members.ahead_of(state.number):
                    await exchange.catch_up()
                me = self._context.signer.peer
                driver = TrainerDriver(self._trainer, state, me, self._record)
                await driver.restore_inner_state()
                self._enter("train", origin)
                await driver.train()
                task_status.started()
                runner = RoundRunner(self._context, process, driver, exchange, self._enter)
                while not self._finish.is_set():
                    await exchange.share_if_restarted()
                    if await self._wait_for_round_end():
                        break
                    await runner.run(self._live_members(), self._finish)
                await driver.collect_last()
                # After a restart, the next round begins with this work.
                await exchange.save_pending()
            nursery.cancel_scope.cancel()

    async def _wait_for_round_end(self) -> bool:
        """Wait for the end of the round by the clock. Returns whether the node is to finish."""
        now_s = self._wall_s()
        end_s = policy.next_end(now_s, self._manifest.round.seconds)
        with trio.move_on_after(max(0.0, end_s - self._wall_s())):
            await self._finish.wait()
        return self._finish.is_set()

    def _live_members(self) -> frozenset[PeerId]:
        return self._members.live_at(self._run)

    def _beacon(self) -> Beacon:
        speed = self._speed.now(trio.current_time())
        return Beacon(
            serial=self._context.next_serial(),
            name=self._context.config.node.name,
            role="node",
            number=self._state.number if self._state else 0,
            # There are no certificates; the run's id stands for genesis.
            tip=self._run,
            view=0,
            phase=self._phase,
            samples=self._trainer.progress().samples,
            loss=speed.loss,
            samples_per_second=speed.samples_per_second,
            device=self._info.device if self._info else "",
            endpoint=None,
            task=self._members.tasks.name,
        )

    async def _no_chain(self, _first: int, _limit: int) -> tuple[ChainReply, list[bytes]]:
        """Answer that this run has no certificates."""
        await trio.lowlevel.checkpoint()
        return ChainReply(tip=self._run, number=0, age_s=0.0, count=0), []

    async def _deliver(self, signed: Signed, message: AnyMessage) -> None:
        await trio.lowlevel.checkpoint()
        if not self._follower.receive(signed, message):
            self._refuse(
                "not_member",
                signed.peer,
                f"a {type(message).__name__} in a run without certificates",
            )

    def _refuse(self, reason: str, peer: PeerId, detail: str) -> None:
        self._record(InputRefused(reason=reason, peer=peer, detail=detail))

    def _process_ended(self, why: str) -> None:
        self._record(Warned(code="HIVEMIND", message=f"The hivemind process ended: {why}"))

    def _enter(self, phase: str, reason: str) -> None:
        """Record the phase, and let the next beacon carry it at once."""
        number = self._state.number + 1 if self._state else 1
        self._phase = phase
        self._record(PhaseEntered(number=number, view=0, phase=phase, reason=reason))
        self._follower.poke()
