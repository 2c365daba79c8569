"""RecentTrainingSpeed: the speed and loss that beacons report between two trainings."""

from __future__ import annotations

from itertools import pairwise

from daemon.swarm.training_speed import RECENT_S, RecentTrainingSpeed, TrainingSpeed
from protocol.journal import PeerReport, RoundCertified
from protocol.ports.trainer import Progress
from simulator.fakes.clock import run_virtual
from simulator.fakes.trainer import QuadraticTrainer
from simulator.playback.player import StoryPlayer
from simulator.scenarios.story import plain

NOTHING = Progress(steps=0, samples=0, loss=None, samples_per_second=0.0)


class ScriptedTrainer(QuadraticTrainer):
    """A trainer that reports the progress that a test sets."""

    def __init__(self) -> None:
        super().__init__(seed=1, peer="", parameters=8, samples_per_second=1.0)
        self.reported = NOTHING

    def progress(self) -> Progress:
        return self.reported


def test_the_last_training_is_reported_until_the_next_one_has_progress() -> None:
    trainer = ScriptedTrainer()
    speed = RecentTrainingSpeed(trainer)
    assert speed.now(0.0) == TrainingSpeed()
    trainer.reported = Progress(steps=4, samples=32, loss=2.5, samples_per_second=16.0)
    assert speed.now(1.0) == TrainingSpeed(samples_per_second=16.0, loss=2.5)
    # The trainer received the next anchor.
    trainer.reported = NOTHING
    assert speed.now(2.0) == TrainingSpeed(samples_per_second=16.0, loss=2.5)
    trainer.reported = Progress(steps=1, samples=8, loss=2.0, samples_per_second=20.0)
    assert speed.now(3.0) == TrainingSpeed(samples_per_second=20.0, loss=2.0)


def test_a_trainer_that_died_or_hangs_is_reported_as_such() -> None:
    trainer = ScriptedTrainer()
    speed = RecentTrainingSpeed(trainer)
    trainer.reported = Progress(steps=4, samples=32, loss=2.5, samples_per_second=16.0)
    speed.now(1.0)
    assert speed.now(1.0 + RECENT_S) == TrainingSpeed(samples_per_second=16.0, loss=2.5)
    assert speed.now(1.1 + RECENT_S) == TrainingSpeed(), "the trainer hangs"
    trainer.reported = Progress(steps=5, samples=40, loss=2.4, samples_per_second=16.0)
    assert speed.now(70.0) == TrainingSpeed(samples_per_second=16.0, loss=2.4)
    trainer.reported, trainer.restarts = NOTHING, 1
    assert speed.now(71.0) == TrainingSpeed()


def test_no_beacon_of_a_calm_swarm_reports_a_speed_of_zero() -> None:
    """Half of all polls once showed 0 samples per second and no loss, at each change of round."""
    played = StoryPlayer(plain("calm", 60.0, 3, lambda n: ())(None, 1))
    reports: list[PeerReport] = []
    certified: set[int] = set()
    happened = played.world.happened

    def observe(node: object, event: object) -> None:
        if isinstance(event, PeerReport):
            reports.append(event)
        if isinstance(event, RoundCertified):
            certified.add(event.number)
        happened(node, event)  # type: ignore[arg-type]

    played.world.happened = observe  # type: ignore[method-assign]
    run_virtual(played.run, seed=1)
    first_trained = {
        report.peer: at
        for at, report in reversed(list(enumerate(reports)))
        if report.samples_per_second > 0
    }
    later = [report for at, report in enumerate(reports) if at >= first_trained[report.peer]]
    assert len(later) > 50
    # The whole exchange takes 0.14 s, less than the least time between two beacons. So a node
    # reports the phase in which the exchange begins, and next the training after the exchange.
    assert {report.phase for report in later} == {"train", "offer"}
    for peer in first_trained:
        phases = [report.phase for report in later if report.peer == peer]
        changes = sum(one != two for one, two in pairwise(phases))
        # The first round begins before the first training, the last one ends after the story.
        assert changes >= 2 * (len(certified) - 2), "the reports cover both changes of each round"
    assert [
        report for report in later if report.samples_per_second == 0 or report.loss is None
    ] == []
