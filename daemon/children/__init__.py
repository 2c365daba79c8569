"""Runs child processes of a node: spawns them, talks over a socket pair, and shares memory.

No child outlives its node. This package does not know what its children do;
`daemon/device` and `daemon/services/training/hivemind` define that.
"""
