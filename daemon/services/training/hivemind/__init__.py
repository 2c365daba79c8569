"""`engine = "hivemind"`: the hivemind library averages, in a process of its own.

It serves swarms that use hivemind already, and is the yardstick for the native engine.
"""
