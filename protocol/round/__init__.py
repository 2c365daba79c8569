"""The round as a pure machine: (state, event, now) -> (state, actions).

`phases.py` has the words, `machine.py` the transition table and what each event does, `leading.py` what only a view's leader decides,
`views.py` how a view begins and ends. `daemon/engines/native` drives it; nothing in here acts.
"""
