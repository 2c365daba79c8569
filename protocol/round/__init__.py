"""The round as a pure machine: (state, event, now) -> (state, actions).

Read `machine.py` first: it holds the theory of operation and the transition table. `phase.py`,
`state.py`, `events.py` and `actions.py` define its words. One module per phase or pair of phases
handles the events: `offer_phase`, `ready_phase`, `exchange_phases`, `vote_phase`, `fetch_phase`,
`merge_phase`. `leader_plan` and `leader_inclusion` decide what only a view's leader decides,
`inclusion_reasons` says why. `views` begins and ends views, `transitions` enters phases.

`daemon/services/training/native` drives the machine. Nothing here acts.
"""
