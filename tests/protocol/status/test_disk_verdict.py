"""The verdict of a node whose disk is full."""

from __future__ import annotations

import msgspec

from protocol import journal
from protocol.status import status_at
from tests.protocol.status.test_verdict import verdict
from tests.story import (
    AT,
    folded,
    started,
    trainer_ready,
)

FULL = journal.Warned(
    code=journal.DISK_FULL,
    message=f"{journal.NOT_OFFERED}: /h/ledger needs 9 bytes, 0 bytes are free",
)


def at(event: journal.JournalEvent, when: float) -> journal.JournalEvent:
    return msgspec.structs.replace(event, at=when)


def test_a_full_disk_comes_before_being_alone() -> None:
    alone = at(journal.Alone(number=1, samples_pending=5, reason=""), AT - 20)
    offering = at(journal.PhaseEntered(number=1, view=0, phase="offer", reason=""), AT - 11)
    level, sentence = verdict(
        started(), trainer_ready(), alone, offering, at(FULL, AT - 10), at(FULL, AT)
    )
    assert level == "bad"
    assert sentence == (
        "The disk refuses to write: nothing can be offered: /h/ledger needs 9 bytes, "
        "0 bytes are free. Free some space there; the node then continues by itself"
    )
    assert (
        len(
            [
                event
                for event in status_at(
                    folded([offering, at(FULL, AT - 10), at(FULL, AT)]), AT
                ).events
                if "DISK_FULL" in event.text
            ]
        )
        == 1
    )


def test_a_written_offer_ends_the_warning() -> None:
    on = at(journal.PhaseEntered(number=1, view=0, phase="train", reason=""), AT)
    assert "disk" not in verdict(started(), trainer_ready(), at(FULL, AT - 1), on)[1]
    assert "disk" not in verdict(started(), trainer_ready(), at(FULL, AT - 31))[1]


def test_a_checkpoint_that_was_not_written_is_a_warning_until_the_next_is() -> None:
    full = at(
        journal.Warned(
            code=journal.DISK_FULL, message="checkpoint 3 was not written: /h/3 needs 9 bytes"
        ),
        AT,
    )
    on = at(journal.PhaseEntered(number=1, view=0, phase="train", reason=""), AT)
    assert verdict(started(), trainer_ready(), full, on) == (
        "warning",
        "The disk refuses to write: checkpoint 3 was not written: /h/3 needs 9 bytes. "
        "Free some space there; the node then continues by itself",
    )
    written = at(journal.CheckpointWritten(number=4, size_bytes=1, seconds=0.1), AT)
    assert "disk" not in verdict(started(), trainer_ready(), full, written)[1]
