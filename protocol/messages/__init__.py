"""The signed messages between nodes, one module per family, and the envelope around them."""
