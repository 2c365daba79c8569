"""Moves slices, sums and results between the members of a plan."""
