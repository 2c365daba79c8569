"""Makes training steps in the worker process: batches, the inner optimizer, skipped batches."""
