"""The rules of the swarm: pure decisions, exact bytes, deterministic arithmetic.

No sockets, no clock, no torch.
"""
