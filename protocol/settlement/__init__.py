"""What is paid to whom: pure, in integers, from certificates alone.

Everybody who holds the certificates gets the same totals.
"""
