"""The exception tree: whose fault an error is decides who learns of it.

HyperGPUError
├── UserError          the user can fix it: what happened, why, what to type
├── OurFault           this node broke its own rules: a bug, logged with its cause
│   └── InvariantBroken
├── PeerFault          a peer sent what the rules refuse; counted under `reason`, never fatal
└── Unreachable        no one is at fault: a stream broke, a peer left, a deadline passed
"""

from __future__ import annotations

from protocol.text.printable import printable

# The longest message of a peer's fault: the peer may have written part of it.
MOST_FAULT_CHARS = 500


class HyperGPUError(Exception):
    """Base of everything raised on purpose."""


class UserError(HyperGPUError):
    """An error that the user can fix.

    `code` is stable (users search for it), `what`, `why` and `fix` are one sentence each,
    `exit_code` is the process's exit status (0 ok, 1 failed, 2 usage or config, 3 daemon not
    running, 4 doctor, 5 key, 6 chain).
    """

    def __init__(
        self, code: str, what: str, *, why: str = "", fix: str = "", exit_code: int = 1
    ) -> None:
        super().__init__(printable(what))
        self.code = code
        # All three may contain text from a peer or a file.
        self.what = printable(what)
        self.why = printable(why)
        self.fix = printable(fix)
        self.exit_code = exit_code

    def __str__(self) -> str:
        parts = [f"{self.what} [{self.code}]"]
        if self.why:
            parts.append(f"  why: {self.why}")
        if self.fix:
            parts.append(f"  fix: {self.fix}")
        return "\n".join(parts)


class OurFault(HyperGPUError):
    """This node did something its own rules forbid."""


class InvariantBroken(OurFault):
    """An invariant of a round does not hold here; to go on could spread the damage."""


class PeerFault(HyperGPUError):
    """A peer sent what the rules refuse.

    `reason` is a short stable word from `REFUSALS` in `protocol.journal` (it becomes a metric's
    label); the message has the details. To handle one: count it, drop what was sent, go on.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(printable(message, MOST_FAULT_CHARS))
        self.reason = reason


class Unreachable(HyperGPUError):
    """The other side does not answer: connection refused, stream broken or deadline passed."""
