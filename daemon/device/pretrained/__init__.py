"""Pretrained language models in the worker: loading, adapters, saving. Needs the extra "hf"."""
