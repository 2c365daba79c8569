"""Setup of all tests."""

from __future__ import annotations

import signal

# A shell starts background jobs with SIGINT ignored, and their children inherit that. Tests that
# interrupt our programs need the default action, as in a terminal.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
