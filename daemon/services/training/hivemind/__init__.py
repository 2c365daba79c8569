"""The hivemind engine (`engine = "hivemind"`): the hivemind library averages, in its own process.

The engine serves swarms that use hivemind already. The benchmarks compare the native engine with
it.
"""
