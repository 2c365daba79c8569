"""Round engines: what turns local training into a shared model. A run's manifest names one.

`native/` is the round machine of `protocol/round`. `hivemind/`, when it comes, replaces it whole:
its own process, its own DHT, its own averaging.
"""
