"""What holds for every test."""

from __future__ import annotations

import signal

# A shell starts what it puts in the background with SIGINT ignored, and so does everything that is
# started from there, our programs among them. The tests that interrupt one mean a terminal.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
