"""The native engine: drives the round machine, moves the bytes, does the arithmetic, keeps the
anchor.
"""
