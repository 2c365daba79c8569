"""The inference service: serves layers of a model, and generates with the stages of a swarm.

service.py          the service of a node that holds a stage
stage_server.py     answers the requests of clients, and computes their steps
stage_exchange.py   announcements: asks other nodes for the stages that they know
model_exchange.py   the model manifest and the tokenizer's file, for nodes without the model
client.py           the client of one model: its directory, its connections, its generations
generation.py       one generation: the hub through which each stage's input passes
recovery.py         replaces a lost hop by exact replay
connections.py      one stream to each stage, for all generations of a client
"""
