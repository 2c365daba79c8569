"""`engine = "hivemind"`: averaging by the hivemind library in a process of its own, for swarms that
already live there and as a yardstick.
"""
