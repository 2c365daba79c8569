"""Measures what the worker costs beside plain torch, in time and memory: both in turn.

command.py         the command `hypergpud bench worker`
benchmark.py       the measurement
plain_process.py   the same training as a user of plain torch writes it, in a process of its own
"""
