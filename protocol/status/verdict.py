"""The verdict: one sentence that answers "is it working?".

The first rule that applies gives the sentence:

    stopped           the node was stopped
    stuck             the node cannot continue without help
    task failed       the trainer trains nothing: its task failed, or its batches were skipped
    trainer died      the trainer restarts
    disk full         work can be neither offered nor kept
    paused            a person paused training
    no quorum         too few voters of the run are connected (rules 4)
    alone             work waits for more nodes, or the other nodes have another task
    standing still    no certificate came in several times the usual interval
    rounds            how many of the last rounds counted, and what became of the others
    training          no round is certified yet

An observer takes no part in rounds: its verdict is about the run.
"""

from __future__ import annotations

from protocol.journal import NOT_OFFERED
from protocol.status.figures import count, phase_words, quantity
from protocol.status.held_out_scores import overfitting, rising
from protocol.status.join_line import join_line
from protocol.status.membership import membership_trouble
from protocol.status.order_progress import order_progress
from protocol.status.peer_records import PeerSummary
from protocol.status.round_verdict import averaged_rounds, own_rounds
from protocol.status.run_verdict import run_seen
from protocol.status.standstill import names_in_words, recently_heard, standstill
from protocol.status.state import StatusState
from protocol.status.text_parts import LeveledText, because

DISK_SILENT_S, DISK_SILENT_ROUNDS = 30.0, 3.0
"""How long a full disk is reported after its last error.

An offer is tried again every 10 s, a checkpoint every round.
"""


def disk_refusal(state: StatusState, now: float) -> str:
    """Return why the disk refuses to write; empty where it does not.

    Every failed attempt repeats the warning.
    """
    silent = now - state.disk_full_at
    limit_s = max(DISK_SILENT_S, DISK_SILENT_ROUNDS * (state.run.round_seconds or 0.0))
    return state.disk_full if silent <= limit_s else ""


def _disk_full(state: StatusState, now: float) -> LeveledText | None:
    """Say that the disk refuses to write."""
    refusal = disk_refusal(state, now)
    if not refusal:
        return None
    level = "bad" if refusal.startswith(NOT_OFFERED) else "warning"
    what_to_do = "Free some space there; the node then continues by itself"
    return level, f"The disk refuses to write: {refusal}. {what_to_do}"


def _alone(state: StatusState, training: list[PeerSummary]) -> LeveledText:
    """Say that work waits for other nodes, and what to do."""
    if state.other_tasks:
        peer, what = next(reversed(state.other_tasks.items()))
        others = quantity(len(state.other_tasks), "node has", "nodes have")
        return (
            "bad",
            f"Alone: {others} another task. {state.name_of(peer)}: {what}. "
            "Use the same version of the task on every node.",
        )
    waiting = quantity(state.you.samples_pending, "sample is waiting", "samples are waiting")
    connected = [peer for peer in training if peer.connected]
    if len(connected) >= state.min_peers - 1:
        others = quantity(len(connected), "other node is", "other nodes are")
        return (
            "warning",
            f"Waiting: {others} connected but not ready; {waiting}. "
            "To see what each node does: hypergpud peers",
        )
    how = join_line(state.you) or "others join with: hypergpud start --join MULTIADDR"
    needed = "" if state.min_peers <= 2 else f" for {state.min_peers - 1} more nodes"
    return (
        "warning",
        f"Alone; {waiting}{needed}. {how[0].upper()}{how[1:]}",
    )


def _quorum(state: StatusState) -> LeveledText | None:
    """Say that too few voters are connected, and what to do if they do not come back."""
    quorum = state.run.quorum
    if quorum is None or not quorum.reason:
        return None
    mine = state.run.owner and state.run.owner == state.you.peer
    who = "you type" if mine else "the run's owner types"
    return (
        "warning",
        f"Nothing is certified{because(quorum.reason)}. This node trains on and keeps its work. If"
        f" the others are gone for good, {who} hypergpud run recover, and anyone may go on in a new"
        " run: hypergpud run fork NAME",
    )


def _ordered(state: StatusState, now: float) -> LeveledText:
    """Say that the run's owner paused or stopped training, who follows, and how it goes on."""
    did = "stopped" if state.run.order == "stop" else "paused"
    after = f" after round {count(state.run.number)}" if state.newest is not None else ""
    mine = state.run.owner and state.run.owner == state.you.peer
    who = "you type" if mine else "the owner types"
    how = f"To go on, {who} hypergpud run resume"
    progress = order_progress(state, now)
    if progress is None or progress.outcome == "complete":
        return "info", f"The run's owner {did} training on every node{after}. {how}"
    left = names_in_words(state, progress.training)
    verb = "trains" if len(progress.training) == 1 else "train"
    level = "warning" if progress.is_late else "info"
    follow = progress.heard - len(progress.training)
    follows = "follows" if follow == 1 else "follow"
    counts = f"{follow} of {quantity(progress.heard, 'node')} {follows}"
    return level, f"The run's owner {did} training{after}: {counts}, {left} still {verb}. {how}"


def _paused(state: StatusState, now: float) -> LeveledText:
    """Say that a person paused training, and how it goes on."""
    if state.run.order:
        return _ordered(state, now)
    waiting = quantity(state.you.samples_pending, "sample waits", "samples wait")
    pending = f"; {waiting} for the next round" if state.you.samples_pending else ""
    if limited := state.you.limits.sentence:
        return (
            "info",
            f"{limited}{pending}. To change it: hypergpud config set limits.{_limit(state)}",
        )
    return "info", f"Training is paused{pending}. To train again: hypergpud resume"


def _limit(state: StatusState) -> str:
    return state.you.limits.pauses[0].limit


def verdict_of(state: StatusState, now: float) -> LeveledText:
    """Return the level and the sentence, by the rules above.

    Lasting troubles are part of the sentence, the bad ones before it and the others after it. So is
    a held-out loss that rises, whatever the members claim.
    """
    level, sentence = _verdict_of(state, now)
    if state.stopped is not None:
        return level, sentence
    quorum = state.run.quorum
    weak = membership_trouble(state)
    if quorum is not None and not quorum.full and not quorum.reason and not weak:
        last = f"the last full one was number {count(quorum.last_full)}"
        sentence = f"{sentence}. The newest certificate has no quorum of its voters; {last}"
        level = level if level == "bad" else "warning"
    points = state.held_out.points()
    if worse_model := overfitting(points) or rising(points):
        sentence = f"{sentence}. {worse_model}"
        level = level if level == "bad" else "warning"
    if weak:
        sentence = f"{sentence}. {weak}"
        level = level if level == "bad" else "warning"
    if apart := _without_path(state, now) or _cut_off(state):
        sentence = f"{sentence}. {apart}"
        level = level if level == "bad" else "warning"
    for worse, trouble in sorted(state.troubles.values()):
        shown = trouble[:1].upper() + trouble[1:]
        sentence = f"{shown}. {sentence}" if worse == "bad" else f"{sentence}. {shown}"
        level = worse if level != "bad" else level
    return level, sentence


def _without_path(state: StatusState, now: float) -> str:
    """Say which nodes that train have no path to this one, and what to do; else empty."""
    training = recently_heard(list(state.peers.values()), now)
    reach = state.you.reach
    apart = [
        peer.peer for peer in training if peer.peer in reach.unreachable and not peer.connected
    ]
    if not apart:
        return ""
    others = f" and {len(apart) - 1} more" if len(apart) > 1 else ""
    own = "Others cannot call this node" if reach.callable is False else "This node can be called"
    return (
        f"No path to {state.name_of(apart[0])}{others}: {own.lower()}, and no member relays between"
        " the two, so that a round holds one of them at a time. Forward a port to this node, or let"
        " a member that can be called relay (network.relay = true)"
    )


def _cut_off(state: StatusState) -> str:
    """Say that nobody is left through whom other nodes reach this one; else empty."""
    known = [peer for peer in state.peers.values() if peer.role == "node"]
    if state.you.reach.callable is not False or not known:
        return ""
    if any(peer.connected for peer in known):
        return ""
    others = quantity(len(known), "other node is", "other nodes are")
    return (
        f"{others} out of reach: others cannot call this node, and no node"
        " that can be called is connected. This node goes on when one comes back, or with a port"
        " forwarded to it (hypergpud doctor --network)"
    )


def _after(still: LeveledText | None, advice: LeveledText) -> LeveledText:
    """Return what to do, after the sentence that says that the run stands still."""
    if still is None:
        return advice
    level = "bad" if "bad" in (still[0], advice[0]) else advice[0]
    return level, f"{still[1]}. {advice[1]}"


def _verdict_of(state: StatusState, now: float) -> LeveledText:
    you = state.you
    if state.stopped is not None:
        return "info", f"Stopped{because(state.stopped)}"
    if state.stuck:
        return "bad", f"Cannot continue{because(state.stuck)}"
    training = recently_heard(list(state.peers.values()), now)
    still = standstill(state, now)
    if you.role == "observer":
        if state.run.order:
            return _ordered(state, now)
        return still or run_seen(state, training)
    if you.failure and (state.trainer_down or state.trainer_up):
        return "bad", you.failure
    if state.trainer_down:
        return (
            "bad",
            f"The trainer died and restarts (restart {count(you.worker_restarts)})"
            f"{because(state.trainer_down)}",
        )
    if full := _disk_full(state, now):
        return full
    if state.held:
        return _paused(state, now)
    if quorum := _quorum(state):
        return _after(still, quorum)
    if state.alone:
        return _after(still, _alone(state, training))
    if still:
        return still
    own = averaged_rounds(state) or own_rounds(state)
    if own:
        return own
    if not you.peer:
        return "info", "Starting"
    if not state.trainer_up:
        return "info", "Starting: waiting for the trainer"
    doing = phase_words(you.phase).capitalize()
    company = (
        f"with {quantity(len(training), 'other node')}"
        if training
        else "no other node was heard from yet"
    )
    return (
        "info",
        f"{doing}, round {count(state.working_on)}, {company}; no round is certified yet",
    )
