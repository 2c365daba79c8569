"""The data plane: how slices, sums and results move between the members of a plan."""
