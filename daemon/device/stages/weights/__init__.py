"""Where the tensors of a stage come from, and the digests of their shards.

source.py         what a source provides, and which source a path is
folder.py         a folder of `transformers`, with safetensors
folder_config.py  its configuration as an `Architecture`
gguf_file.py      a GGUF file; the only module that imports gguf
run_file.py       a file of `hypergpud export --format safetensors`
shard_folder.py   shards that came from other members
shards.py         the bytes and digest of a shard, and loading one
"""
