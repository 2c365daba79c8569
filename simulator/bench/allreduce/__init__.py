"""`hypergpud bench allreduce`: engines side by side, every result compared with the exact mean."""
