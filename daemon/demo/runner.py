"""The whole demo: run the swarm, compare the models, print the result, remove the files."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

import msgspec

from daemon.cli.invocation import Invocation
from daemon.demo.agreement import compare_anchors
from daemon.demo.demo_settlement import DemoSettlement
from daemon.demo.founders import with_demo_founders
from daemon.demo.progress_output import ProgressOutput, open_output
from daemon.demo.result import result_text
from daemon.demo.stop_request import StopRequest, until_signalled
from daemon.demo.supervisor import DemoSupervisor
from daemon.node.run_choice import bundled_text, load_or_bundled_manifest
from protocol.errors import UserError

# How long a daemon may certify no round, beyond the run's own round time. The first round must come
# within 60 s.
STALL_TIMEOUT_S = 180.0
INTERRUPTED = 130


def run_demo(
    invocation: Invocation,
    *,
    peers: int,
    rounds: int,
    run_file: Path | None,
    chain: bool = False,
    anvil: bool = False,
    alone: bool = True,
) -> int:
    """Run the swarm until `rounds` are certified everywhere, then print the result.

    With `rounds` 0 it runs until Ctrl-C. Returns the exit code; no process is left by then.

    Raises `UserError` where the run's file is wrong or the first daemon does not start.
    """
    manifest = load_or_bundled_manifest(run_file)
    stall_timeout_s = STALL_TIMEOUT_S + 4 * manifest.round.seconds
    with ExitStack() as stack:
        stop = stack.enter_context(until_signalled())
        root = Path(tempfile.mkdtemp(prefix="hypergpu-demo-"))
        output = stack.enter_context(open_output(invocation))
        try:
            chosen = run_file.absolute() if run_file else None
            settlement = _settlement(root, chosen, peers, stop, output, anvil) if chain else None
            used = _run_file(root, chosen, peers, settlement)
            with DemoSupervisor(root, used, peers, output, settlement, alone=alone) as supervisor:
                reason = supervisor.run(rounds, stall_timeout_s, stop)
                paid = supervisor.pay()
                supervisor.close()
                homes = [process.home for process in supervisor.members()]
                agreement = compare_anchors(homes, supervisor.tally.run)
                compared = supervisor.comparison(stop)
                result = supervisor.tally.result(peers, agreement, paid, compared)
        except UserError:
            output.tell(f"The logs are kept in {root}")
            raise
        except KeyboardInterrupt:
            # The second Ctrl-C: no result, no files.
            shutil.rmtree(root, ignore_errors=True)
            raise
        if reason:
            output.tell(reason)
        output.close()
        invocation.result(
            msgspec.json.encode(result).decode()
            if invocation.as_json
            else result_text(result, agreement)
        )
        # Without --rounds, Ctrl-C is the normal end of a demo.
        interrupted = stop.is_set() and rounds > 0
        if interrupted or (result.good and not reason):
            shutil.rmtree(root, ignore_errors=True)
            return INTERRUPTED if interrupted else 0
        invocation.say(f"The logs and checkpoints are kept in {root}")
        return 1


def _run_file(
    root: Path, chosen: Path | None, peers: int, settlement: DemoSettlement | None
) -> Path | None:
    """Return the file that the daemons start; None for the bundled run as it is."""
    text = _text_of(chosen)
    founded = with_demo_founders(text, [root / f"node-{number + 1}" for number in range(peers)])
    if settlement:
        return settlement.run_file(founded)
    if founded == text:
        return chosen
    path = root / "run.toml"
    path.write_text(founded, encoding="utf-8")
    return path


def _settlement(
    root: Path,
    run_file: Path | None,
    peers: int,
    stop: StopRequest,
    output: ProgressOutput,
    anvil: bool,
) -> DemoSettlement:
    """Raises `UserError("MANIFEST")` for a run that names a chain of its own."""
    # web3 takes two seconds, which a demo without a chain does not need.
    from daemon.demo.settlement_demo import SettlementDemo  # noqa: PLC0415

    if load_or_bundled_manifest(run_file).chain != "none":
        raise UserError(
            "MANIFEST",
            "This run names a chain of its own.",
            why="a demo settles on a chain that it starts itself",
            fix="leave out --chain",
            exit_code=2,
        )
    names = [f"node-{number}" for number in range(1, peers + 1)]
    return SettlementDemo(root, names, stop, output.tell, anvil=anvil)


def _text_of(run_file: Path | None) -> str:
    return run_file.read_text(encoding="utf-8") if run_file else bundled_text()
