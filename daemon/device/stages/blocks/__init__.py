"""The layers of each family of models.

block.py     what a family provides: embedding, layer, head
llama.py     RMSNorm, rotary positions, grouped heads: Llama, Qwen2, Qwen3, SmolLM
bloom.py     LayerNorm, ALiBi
byte_gpt.py  the task "byte_gpt" of our own runs
"""
