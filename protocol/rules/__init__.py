"""The rules that the members of a run must agree on, by version.

A manifest names the version; a run keeps it for its whole life.

`versions.py` has the numbers and the sentences, `registry.py` the functions behind each number.
"""
