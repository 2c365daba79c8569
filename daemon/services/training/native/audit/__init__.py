"""Audits of reducers: checks of their sums, and proofs of wrong ones."""
