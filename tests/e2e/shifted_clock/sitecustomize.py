"""Shifts the wall clock by `CLOCK_SHIFT_S`, as after an empty battery.

Python imports this module at its start if this folder is on the path.
"""

import os
import time

_SHIFT_S = float(os.environ.get("CLOCK_SHIFT_S", "0"))
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + _SHIFT_S
time.time_ns = lambda: _time_ns() + int(_SHIFT_S * 1e9)
