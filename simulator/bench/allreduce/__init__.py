"""`hypergpud bench allreduce`: engines side by side, each peer its own process, every result held
against the exact mean.
"""
