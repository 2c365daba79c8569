"""The inner optimizers that a run can choose, over a model's flat vector. Worker process only."""
