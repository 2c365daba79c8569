"""Generating text: how the next token is chosen from a model's logits."""
