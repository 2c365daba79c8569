"""What is known of the network: what a node measures of its neighbours, says of them in Ready, and
what a plan may believe of all that.

`coordinate.py` where nodes are, so that two that never met have an estimate; `samples.py` what a
window of measurements comes to; `sight.py` what one node says of others; `views.py` what follows
from what everybody says, `flows.py` of it what a path carries; `quality.py` how good a connection
is; `standing.py` whom to leave out for a while.
"""
