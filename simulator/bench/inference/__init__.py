"""Measures what it costs to split a model into stages, and what audits find.

token_times.py   one stage and several, real processes on loopback
far_stages.py    the same stages on loopback and far from each other
token_clock.py   its client, a process of its own
stage_audits.py  audits of honest stages and of cheats, with real weights
cheats.py        what the cheats compute
command.py       the commands `hypergpud bench inference` and `bench stage-audits`
"""
