"""The average of a round: who sums which part of the vector, the sum, and the outer step.

`vector_layout.py` divides the vector into chunks and slices, and `slice_sizes.py` sizes the slices.
`group_layout.py` reads from a plan who sums what. `inclusion.py` checks the leader's closed set of
contributors, `reduction.py` adds them up, and `outer_step.py` computes the next anchor.
`sum_audit.py` and `judgment.py` find and prove wrong sums. All functions are pure.
"""
