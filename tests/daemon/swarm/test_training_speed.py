"""What others are told of a node's training between two stretches of it."""

from __future__ import annotations

from daemon.swarm.training_speed import RECENT_S, RecentTrainingSpeed, TrainingSpeed
from protocol.journal import PeerReport
from protocol.ports.trainer import Progress
from simulator.fakes.clock import run_virtual
from simulator.fakes.trainer import QuadraticTrainer
from simulator.playback.player import StoryPlayer
from simulator.scenarios.story import plain

NOTHING = Progress(steps=0, samples=0, loss=None, samples_per_second=0.0)


class Reports(QuadraticTrainer):
    """A trainer that says what the test wants to be said."""

    def __init__(self) -> None:
        super().__init__(seed=1, peer="", parameters=8, samples_per_second=1.0)
        self.said = NOTHING

    def progress(self) -> Progress:
        return self.said


def test_what_was_done_last_is_told_until_something_is_done_since() -> None:
    trainer = Reports()
    pace = RecentTrainingSpeed(trainer)
    assert pace.now(0.0) == TrainingSpeed()
    trainer.said = Progress(steps=4, samples=32, loss=2.5, samples_per_second=16.0)
    assert pace.now(1.0) == TrainingSpeed(samples_per_second=16.0, loss=2.5)
    trainer.said = NOTHING  # it was given the next anchor
    assert pace.now(2.0) == TrainingSpeed(samples_per_second=16.0, loss=2.5)
    trainer.said = Progress(steps=1, samples=8, loss=2.0, samples_per_second=20.0)
    assert pace.now(3.0) == TrainingSpeed(samples_per_second=20.0, loss=2.0)


def test_a_trainer_that_died_or_does_nothing_is_told_as_that() -> None:
    trainer = Reports()
    pace = RecentTrainingSpeed(trainer)
    trainer.said = Progress(steps=4, samples=32, loss=2.5, samples_per_second=16.0)
    pace.now(1.0)
    assert pace.now(1.0 + RECENT_S) == TrainingSpeed(samples_per_second=16.0, loss=2.5)
    assert pace.now(1.1 + RECENT_S) == TrainingSpeed(), "it hangs"
    trainer.said = Progress(steps=5, samples=40, loss=2.4, samples_per_second=16.0)
    assert pace.now(70.0) == TrainingSpeed(samples_per_second=16.0, loss=2.4)
    trainer.said, trainer.restarts = NOTHING, 1
    assert pace.now(71.0) == TrainingSpeed()


def test_no_beacon_of_a_calm_swarm_says_that_nobody_trains() -> None:
    """Half of all polls once showed 0 samples per second and no loss, at each change of round."""
    played = StoryPlayer(plain("calm", 60.0, 3, lambda n: ())(None, 1))
    reports: list[PeerReport] = []
    happened = played.world.happened

    def see(node: object, event: object) -> None:
        if isinstance(event, PeerReport):
            reports.append(event)
        happened(node, event)  # type: ignore[arg-type]

    played.world.happened = see  # type: ignore[method-assign]
    run_virtual(played.run, seed=1)
    begun = {
        report.peer: at
        for at, report in reversed(list(enumerate(reports)))
        if report.samples_per_second > 0
    }
    told = [report for at, report in enumerate(reports) if at >= begun[report.peer]]
    assert len(told) > 50
    assert len({report.phase for report in told}) >= 3, "they were told at changes of phase, too"
    assert [
        report for report in told if report.samples_per_second == 0 or report.loss is None
    ] == []
