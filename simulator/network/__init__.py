"""How long a plan's bytes take on stated links, and which plan is best on them."""
