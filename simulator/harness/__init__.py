"""Real processes under fault: members that say what happens in them, links that can be cut and
shaped, and an audit of what was certified.
"""
