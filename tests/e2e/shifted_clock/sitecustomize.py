"""Python imports this at its start where its folder is on the path: the wall clock is
`CLOCK_SHIFT_S` off, as after a battery ran out.
"""

import os
import time

_SHIFT_S = float(os.environ.get("CLOCK_SHIFT_S", "0"))
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + _SHIFT_S
time.time_ns = lambda: _time_ns() + int(_SHIFT_S * 1e9)
