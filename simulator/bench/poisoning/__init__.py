"""`hypergpud bench poisoning`: what attackers among the members of a run do to its model."""
