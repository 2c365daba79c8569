"""When a member scores an anchor on held-out samples, and on which of them."""
