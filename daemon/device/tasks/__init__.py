"""What can be trained: the `Task` that users write, and the shipped ones by name (`catalog.py`)."""
