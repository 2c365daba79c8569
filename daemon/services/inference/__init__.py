"""The inference service: serves layers of a model, and generates with the stages of a swarm.

service.py          the service of a node that holds a stage
stage_server.py     answers the requests of clients, and computes their steps
step_codec.py       the bytes of a step, and the commitment in its answer
receipt_desk.py     the receipts that a stage holds: checked, countersigned, kept
receipt_folder.py   these receipts on disk
receipt_book.py     what a client owes to stages, and the receipts that it signs
stage_exchange.py   announcements: asks other nodes for the stages that they know
model_exchange.py   the model manifest and the tokenizer's file, for nodes without the model
weight_server.py    gives shards of the model to members that do not have it
weight_fetch.py     fetches them, in checked chunks
client.py           the client of one model: its directory, its connections, its generations
generation.py       one generation: the hub through which each stage's input passes
chain.py            the stages of one generation: built, and repaired by exact replay
hop_calls.py        the requests to one stage, with their deadlines
stage_choice.py     the stages that a client knows, and the routes through them
stage_audit.py      other holders repeat what the stages of an answer computed
event_text.py       what happened to a generation, in words
connections.py      one stream to each stage, for all generations of a client
"""
