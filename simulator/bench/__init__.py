"""`hypergpud bench`: measurements of this version in real processes on this machine."""
