"""Stores a run's checkpoints, ledger, view records, certificates and proofs in a node's home."""
