"""Pretrained models on this machine: which ones can be fetched, where they are, how to get them."""
