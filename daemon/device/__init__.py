"""The worker: a process that owns the device, and the node's side of it.

    node process (trio, numpy)                     worker process (torch)
    process/trainer.py         the port `Trainer`  main.py       entry; ends with its parent
    process/supervisor.py      starts, watches,    arbiter.py    commands, then training
                               restarts a process  device_turn.py  waits for the node's stage
                                                   loops/        steps, deltas
                                                   optimizers/   AdamW, SGD, Muon
    process/worker_process.py  one process         model/        flat model, checks of the model
            │                                      processor.py  CPU or CUDA
            │                                      tasks/        shipped tasks, the `Task` class
            │                                              │
            ├─────── messages.py, over a socket pair ──────┤
            └─────── shared_memory.py, the vectors ────────┘

`group/` makes one trainer of several such pairs, one for each device of the machine.

The right column imports torch, and only when it runs. Importing this package imports nothing.
"""
