"""The oracle: reports of certified work, sent by nodes and received by the observer."""
