"""Pipelined inference: the rules by which stages serve a model and a client uses them.

layers.py             ranges of layers
model.py              the model manifest, which names a model by its content
announcement.py       what stages announce, and the directory of those that a node knows
coverage.py           which layers are served, and which range a further stage should serve
routing.py            the cheapest chain of stages
messages.py           requests of a client to a stage, and the replies
activations.py        how tokens and hidden states travel
stage_generations.py  what a stage does with each request: leases, quotas, repeated steps
shard_transfer.py     how weights travel: shards in checked chunks
replay_log.py         what a client keeps, so that any stage can be replaced
span.py               commitments of stages to what they computed, in signed digests
receipt.py            what a client got from a stage, signed by both
audit.py              whether two holders of the same layers computed the same
recovery_events.py    what a generation reports about lost stages and audits
"""
