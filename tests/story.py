"""The events of a node's day, for tests of the status, the page and the terminal.

They are always the same; `AT` is the time of the last one.
"""

from __future__ import annotations

import hashlib

from protocol.identity import Signer
from protocol.journal import (
    AnchorScored,
    Contributor,
    InputRefused,
    JournalEvent,
    NodeStarted,
    PeerReport,
    PeerScored,
    PeerUp,
    PhaseEntered,
    Planned,
    RoundCertified,
    TrafficReport,
    Trained,
    TrainerReady,
    TrainingProgress,
    ViewPassed,
)
from protocol.status import StatusState, fold

AT = 1_700_000_000.0
ROUND_S = 14.0
PEERS = tuple(Signer(hashlib.sha256(bytes([i])).digest()).peer for i in range(5))
ME = PEERS[0]
HOSTILE = "<script>alert('x')</script>\"&\u202e\x1b[31m"
NAMES = ("attic", "kitchen", "basement-4090", HOSTILE, "Zoë’s laptop")


def started(role: str = "node", min_peers: int = 2) -> NodeStarted:
    """The first event."""
    return NodeStarted(
        at=AT - 1000,
        peer=ME,
        name=NAMES[0],
        role=role,
        version="0.1.0",
        addresses=(f"/ip4/127.0.0.1/tcp/4001/p2p/{ME}",),
        run="ab" * 32,
        run_name="stdlib-gpt",
        task="byte_gpt",
        engine="native",
        min_peers=min_peers,
    )


def trainer_ready() -> TrainerReady:
    """The worker is ready."""
    return TrainerReady(at=AT - 999, device="cpu (2 threads)", parameters=1_234_567, threads=2)


def certified(
    number: int,
    outcome: str = "counted",
    *,
    at: float = AT,
    loss: float | None = None,
    members: int = 4,
    weight: int | None = None,
    kept: dict[str, float] | None = None,
) -> RoundCertified:
    """Round `number`; every member but a late or lost one of ours contributed 100 samples.

    Each of them weighed `weight`, and `kept` says what the clip left of a member's work.
    """
    contributors = PEERS[:members] if outcome in ("counted", "observed") else PEERS[1:members]
    shares = tuple(
        Contributor(peer=peer, samples=100, loss=3.0, weight=weight, kept=(kept or {}).get(peer))
        for peer in contributors
    )
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return RoundCertified(
        at=at,
        number=number,
        view=0,
        certificate=digest,
        parent="00" * 32,
        members=PEERS[:members],
        shares=shares,
        samples=100 * len(shares),
        loss=6.0 - 0.05 * number if loss is None else loss,
        state_digest="" if outcome == "observed" else digest[::-1],
        outcome=outcome,
        phase_seconds={}
        if outcome == "observed"
        else {"train": 12.0, "ready": 0.1, "scatter": 0.4, "reduce": 0.3, "vote": 0.1},
        reason={
            "late": "the offer came 0.8 s after the plan",
            "lost": f"the connection to {NAMES[2]} broke",
        }.get(outcome, ""),
    )


def report(i: int, *, at: float = AT, role: str = "node", path: str = "direct") -> PeerReport:
    """The beacon of peer `i`."""
    return PeerReport(
        at=at,
        peer=PEERS[i],
        name=NAMES[i],
        role=role,
        number=3,
        tip="cd" * 32,
        phase="train",
        samples=100,
        loss=3.0,
        samples_per_second=50.0 + i,
        device="cpu",
        path=path,
        address="/ip4/127.0.0.1/tcp/4002",
        rtt_s=0.0123 if path else None,
    )


def scored(
    i: int, number: int, loss: float, *, samples: int = 256, at: float = AT
) -> AnchorScored | PeerScored:
    """The score that member `i` gives the anchor of round `number`."""
    certificate = hashlib.sha256(str(number).encode()).hexdigest()
    if i == 0:
        return AnchorScored(
            at=at, number=number, certificate=certificate, loss=loss, samples=samples, seconds=0.1
        )
    return PeerScored(
        at=at, peer=PEERS[i], number=number, certificate=certificate, loss=loss, samples=samples
    )


def day(role: str = "node", rounds: int = 6) -> list[JournalEvent]:
    """Return the events of a start, some rounds of four members, and reports about peers."""
    events: list[JournalEvent] = [started(role)]
    if role == "node":
        events.append(trainer_ready())
    events += [
        PeerUp(at=AT - 990, peer=PEERS[i], path="direct", address="/ip4/127.0.0.1/tcp/4002")
        for i in (1, 2, 3)
    ]
    for number in range(1, rounds + 1):
        at = AT - 20 - ROUND_S * (rounds - number)
        outcome = (
            "observed" if role == "observer" else {2: "late", 4: "lost"}.get(number, "counted")
        )
        if role == "node":
            events.append(TrainingProgress(at=at - 3, samples=80, loss=3.1, samples_per_second=8.0))
            events.append(
                Trained(at=at - 2, number=number, steps=10, samples=100, loss=3.0, seconds=12.0)
            )
        if number == 3:
            events.append(
                ViewPassed(
                    at=at - 1.5,
                    number=number,
                    view=0,
                    reason="the leader kitchen was silent for 3.0 s",
                )
            )
        events.append(
            Planned(
                at=at - 1,
                number=number,
                view=0,
                leader=PEERS[1],
                members=PEERS[:4],
                reason="one row of 4",
            )
        )
        events.append(certified(number, outcome, at=at))
    if role == "node":
        events.append(
            PhaseEntered(
                at=AT - 20, number=rounds + 1, view=0, phase="train", reason="12.0 s to go"
            )
        )
    events += [report(1), report(2, path="relayed"), report(3), report(4, path="")]
    events.append(
        InputRefused(at=AT - 5, reason="unsigned", peer="", detail="random bytes", count=3)
    )
    events.append(
        TrafficReport(
            at=AT,
            control_sent=1_000,
            control_received=2_000,
            bulk_sent=3_000_000,
            bulk_received=4_000_000,
            connections=3,
        )
    )
    return events


def folded(events: list[JournalEvent]) -> StatusState:
    """Return the status state after `events`."""
    state = StatusState()
    for event in events:
        fold(state, event)
    return state
