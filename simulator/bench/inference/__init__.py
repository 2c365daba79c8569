"""Measures what it costs to split a model into stages: real processes on loopback.

token_times.py   the measurement
command.py       the command `hypergpud bench inference`
"""
