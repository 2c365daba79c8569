"""The worker: the process that owns the device and learns, and the node's side of it.

    node process (trio, numpy)                      worker process (torch)
    supervisor.py  WorkerTrainer, the Trainer port  main.py     entry, dies with its parent
    process.py     spawns, watches, kills one       session.py  obeys commands between steps
            \\_________ messages.py  framing ________/  loop.py     steps, AdamW, deltas
             \\________ buffers.py  shared memory __/   flat_model.py, device.py, tasks/

Only the right column and `tasks/` import torch, and only when they are used: importing this package
imports nothing.
"""
