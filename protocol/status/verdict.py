"""The verdict: one sentence that answers "is it working?", and the record around it.

The first rule that applies speaks:

    stopped            the node was stopped
    stuck              it cannot go on by itself
    the trainer died   it is being restarted, or the task failed too often and nothing is trained
    failing            it is up, and trained nothing since its task failed or its batches had to be skipped
    stale              rounds used to come, and none has for long
    the disk is full   what it learned can be neither offered nor kept
    alone              what it learned waits for a second peer, or nothing waits since the others have another task
    waiting            enough peers are connected, and none of them is ready
    averaged           the same of an engine without certificates, and that it has none
    rounds             how many of the last ones counted, and why the others did not
    training           no round is certified yet

An observer has no part of its own in a round: its verdict is about the run.
"""

from __future__ import annotations

from collections import Counter

from msgspec.structs import replace

from protocol.identity import PeerId
from protocol.journal import NOT_OFFERED
from protocol.status.event_text import because
from protocol.status.figures import count, duration, loss, of, phase_words
from protocol.status.records import PeerSummary, RunSummary, Status
from protocol.status.state import StatusState

# A peer counts among those training while its last beacon is not older; beacons come every few
# seconds.
HEARD_S = 30.0
# Rounds without a certificate before the verdict says so: two failed views and a restart are
# normal.
STALE_ROUNDS = 5.0
STALE_AT_LEAST_S = 60.0
# An offer is tried again every 10 s, a checkpoint every round.
DISK_SILENT_S, DISK_SILENT_ROUNDS = 30.0, 3.0
NO_REWARDS = "no chain: this run pays nothing"
NOT_CERTIFIED = "nothing: rounds of the engine hivemind carry no certificate and earn nothing"
UNCERTIFIED = ("averaged", "partial", "apart", "failed")
"""Outcomes of rounds without certificates."""

LeveledText = tuple[str, str]  # level, sentence


def _recent(peers: list[PeerSummary], now: float) -> list[PeerSummary]:
    return [peer for peer in peers if peer.role == "node" and now - peer.last_seen <= HEARD_S]


def _stale(state: StatusState, now: float) -> LeveledText | None:
    """Only where the rhythm of the run is known."""
    last = state.newest
    if last is None or state.run.round_seconds is None:
        return None
    silent = now - last.at
    if silent <= max(STALE_ROUNDS * state.run.round_seconds, STALE_AT_LEAST_S):
        return None
    # Whole minutes: the sentence should not change every second.
    minutes = duration(silent // 60 * 60)
    tried = next(
        (
            f" Last try{because(known.reason)}"
            for known in state.rounds
            if known.outcome == "missed" and known.reason
        ),
        "",
    )
    return "bad", f"No round was certified for {minutes}; the last was round {last.number}.{tried}"


def _disk_full(state: StatusState, now: float) -> LeveledText | None:
    """While the disk refuses: each refusal is said again at the next attempt."""
    silent = now - state.disk_full_at
    if not state.disk_full or silent > max(
        DISK_SILENT_S, DISK_SILENT_ROUNDS * (state.run.round_seconds or 0.0)
    ):
        return None
    level = "bad" if state.disk_full.startswith(NOT_OFFERED) else "warning"
    what_to_do = "Free some space there; the node then goes on by itself"
    return level, f"The disk refuses to write: {state.disk_full}. {what_to_do}"


def _alone(state: StatusState, training: list[PeerSummary]) -> LeveledText:
    if state.other_tasks:
        peer, what = next(reversed(state.other_tasks.items()))
        others = of(len(state.other_tasks), "peer has", "peers have")
        return (
            "bad",
            f"Alone: {others} another task. {state.who(peer)}: {what}. Use the same version of the task on every node.",
        )
    needed = "a second peer" if state.min_peers <= 2 else f"{state.min_peers - 1} more peers"
    done = f"trained {of(state.you.samples_pending, 'sample')} that wait for {needed}"
    here = [peer for peer in training if peer.connected]
    if len(here) >= state.min_peers - 1:
        others = of(len(here), "other node is", "other nodes are")
        show = "hypergpud peers shows what each node does"
        return "warning", f"Waiting: {done}; {others} connected but not ready; {show}"
    address = state.you.addresses[0] if state.you.addresses else "MULTIADDR"
    return "warning", f"Alone: {done}; others join with: hypergpud start --join {address}"


def _own_rounds(state: StatusState) -> LeveledText | None:
    """How many of the last rounds counted, and what became of the others."""
    outcomes = Counter(known.outcome for known in state.rounds)
    own = [outcomes[word] for word in ("counted", "late", "lost", "idle")]
    counted, late, lost, idle = own
    total = sum(own)
    if not total:
        return None
    if total == 1:
        sentence = "Your first round counted" if counted else "Your first round did not count"
    elif counted == total:
        sentence = f"All of your last {count(total)} rounds counted"
    else:
        sentence = f"{counted} of your last {count(total)} rounds counted"
    why = []
    if late:
        why.append(f"{late} too slow")
    if lost:
        why.append(of(lost, "peer lost", "peers lost"))
    if idle:
        why.append(f"{idle} with nothing to offer")
    if outcomes["missed"]:
        why.append(
            of(
                outcomes["missed"],
                "try ended without a certificate",
                "tries ended without a certificate",
            )
        )
    sentence += f"; {', '.join(why)}" if why else ""
    offered = total - idle
    if offered and counted * 10 >= offered * 9:
        return "good", sentence
    return (
        "bad" if offered >= 5 and counted * 2 < offered else "warning" if offered else "info"
    ), sentence


def _averaged_rounds(state: StatusState) -> LeveledText | None:
    """What this node saw of the last rounds of an engine without certificates."""
    outcomes = Counter(known.outcome for known in state.rounds if known.outcome in UNCERTIFIED)
    total = outcomes.total()
    if not total:
        return None
    averaged = outcomes["averaged"]
    last = (
        "Your last round was"
        if total == 1
        else f"{averaged} of your last {count(total)} rounds were"
    )
    sentence = f"{last} averaged" if total > 1 or averaged else "Your first round was not averaged"
    troubles = {"partial": "only in part", "apart": "spent catching up", "failed": "failed"}
    why = [
        f"{outcomes[outcome]} {words}" for outcome, words in troubles.items() if outcomes[outcome]
    ]
    sentence += (
        f" ({', '.join(why)})" if why else ""
    ) + "; not certified: hivemind's rounds prove nothing and earn nothing"
    return ("info" if averaged * 10 >= total * 9 else "warning"), sentence


def _run_seen(state: StatusState, training: list[PeerSummary]) -> LeveledText:
    """An observer's verdict."""
    run = state.run
    last = state.newest
    if last is None:
        if not training:
            return "warning", "Nobody is training here yet: waiting for the nodes of this run"
        if run.engine == "hivemind":
            furthest = max(peer.number for peer in training)
            nodes = of(len(training), "node is", "nodes are")
            return (
                "info",
                f"{nodes} training, at round {count(furthest)} by their own word; not certified: the engine hivemind has no certificates",
            )
        return (
            "info",
            f"{of(len(training), 'node is', 'nodes are')} training; no round has been certified yet",
        )
    part = f"the last with {len(last.contributors)} of {of(len(last.members), 'member')}"
    sentence = f"{of(run.rounds_certified, 'round')} certified, {part}"
    if run.loss_first is not None and run.loss is not None:
        sentence += f"; loss {loss(run.loss_first)} → {loss(run.loss)}"
    if run.round_seconds is not None:
        sentence += f"; a round every {duration(run.round_seconds)}"
    missed = sum(known.outcome == "missed" for known in state.rounds)
    if missed:
        sentence += f"; {of(missed, 'try', 'tries')} ended without a certificate"
    if not training:
        return "warning", f"{sentence}; nobody is training now"
    return "good", sentence


def verdict_of(state: StatusState, now: float) -> LeveledText:
    """Level and sentence, by the rules above.

    A trouble that lasts goes with it, and one that is bad comes first.
    """
    level, sentence = _verdict_of(state, now)
    if state.stopped is not None:
        return level, sentence
    for worse, trouble in sorted(state.troubles.values()):
        shown = trouble[:1].upper() + trouble[1:]
        sentence = f"{shown}. {sentence}" if worse == "bad" else f"{sentence}. {shown}"
        level = worse if level != "bad" else level
    return level, sentence


def _verdict_of(state: StatusState, now: float) -> LeveledText:
    you = state.you
    if state.stopped is not None:
        return "info", f"Stopped{because(state.stopped)}"
    if state.stuck:
        return "bad", f"Stuck{because(state.stuck)}"
    training = _recent(list(state.peers.values()), now)
    stale = _stale(state, now)
    if you.role == "observer":
        return stale or _run_seen(state, training)
    if you.failure and (state.trainer_down or state.trainer_up):
        return "bad", you.failure
    if state.trainer_down:
        return (
            "bad",
            f"The trainer died and is being restarted ({of(you.worker_restarts, 'time')} so far){because(state.trainer_down)}",
        )
    if full := _disk_full(state, now):
        return full
    if state.alone:
        return _alone(state, training)
    if stale:
        return stale
    own = _averaged_rounds(state) or _own_rounds(state)
    if own:
        return own
    if not you.peer:
        return "info", "Starting"
    if not state.trainer_up:
        return "info", "Starting: waiting for the trainer"
    doing = phase_words(you.phase).capitalize()
    company = (
        f"with {of(len(training), 'other node')}"
        if training
        else "no other node has been heard of yet"
    )
    return (
        "info",
        f"{doing}, round {count(state.working_on)}, {company}; no round has been certified yet",
    )


def _order(peer: PeerSummary) -> tuple[bool, bool, str, PeerId]:
    return (not peer.connected, peer.role != "node", peer.name, peer.peer)


def _run_now(state: StatusState, now: float) -> RunSummary:
    training = _recent(list(state.peers.values()), now)
    is_node = state.you.role == "node" and bool(state.you.peer) and state.stopped is None
    speed = sum(peer.samples_per_second for peer in training) + (
        state.you.samples_per_second if is_node else 0.0
    )
    return replace(state.run, nodes=len(training) + is_node, samples_per_second=speed)


def status_at(state: StatusState, now: float) -> Status:
    """The status at `now` (unix seconds, the clock of the events' `at`).

    Pure; the state may be folded further afterwards.
    """
    level, sentence = verdict_of(state, now)
    return Status(
        as_of=now,
        verdict=sentence,
        level=level,
        you=state.you,
        run=_run_now(state, now),
        rounds=tuple(state.rounds),
        peers=tuple(sorted(state.peers.values(), key=_order)),
        network=state.network,
        refusals=dict(state.refusals),
        rewards=NOT_CERTIFIED if state.run.engine == "hivemind" else state.rewards or NO_REWARDS,
        events=state.newest_sentences(),
        curve=state.curve(),
    )
