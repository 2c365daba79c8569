"""The `Task` class that users derive from, and the shipped tasks (`catalog.py`)."""
