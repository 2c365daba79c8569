"""The limits that a volunteer sets: when this machine trains, and what training may cost it.

hours.py      hours of the week, as text and as a rule
limits.py     what the volunteer allows, and what the machine measures of itself
decision.py   `decide(limits, readings, before)`: which limits pause training now, and until when

Nothing here reads a clock or a sensor. `daemon/system` reads them.
"""
