"""The model in the worker process: its flat vector, its rules, and guards of its code."""
