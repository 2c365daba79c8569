"""Processes that a node starts: spawned, spoken to over a socket pair, sharing anonymous memory,
gone when the node is gone.

Knows nothing of what a child does; `daemon/device` and `daemon/services/training/hivemind` say that.
"""
