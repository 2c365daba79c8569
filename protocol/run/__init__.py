"""A run: what its members agree on before they meet.

`manifest.py` defines every field of a run's file. `admission.py` says who may take part.
`task_digest.py` compares tasks, `initial_parameters.py` computes the first anchor, and
`data_order.py` decides which samples a member draws.
"""
