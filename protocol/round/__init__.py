"""The round as a pure machine: (state, event, now) -> (state, actions).

`phases.py` has the words, `machine.py` the transition table. What each event does: `gathering.py`
up to a plan, `reducing.py` up to the vote, `voting.py` votes and certificates, `merging.py` the
meeting of branches; `leading.py` what only a view's leader decides, `views.py` how a view begins
and ends. `daemon/services/training/native` drives it; nothing in here acts.
"""
