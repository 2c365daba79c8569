"""The demo of serving: a model in stages, an answer, a stage that is killed, the same answer.

inference_demo.py   the story, and its result
served_swarm.py     the processes: stages, each range twice, and the API
trained_model.py    a small model of our own, trained by two nodes
text_client.py      reads an answer from the API as it is made
"""
