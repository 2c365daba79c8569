"""The rules that the members of a run must agree on, by version.

A manifest names the version, and a run keeps it for its whole life. `versions.py` has the numbers
and the messages, `registry.py` the functions of each version.
"""
