"""How a plan's rows come about: `rows.py` proposes them, `cost.py` tells how long each proposal
would take, `choice.py` takes one and says why.

Everybody who gets a plan makes it again, so all of it is integers and the four operations on
floats: the same on every machine.
"""
