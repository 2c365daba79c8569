"""The network alone: how long a plan's bytes take on links that are made up but stated, and which
plan is best on them.
"""
