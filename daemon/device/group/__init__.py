"""Several devices of one machine, as one trainer.

    trainer_group.py    the port `Trainer` over several trainers, which train beside each other
    group_members.py    commands to all of them, and which of them are lost
    group_work.py       the sum of what they learned
    worker_group.py     one worker process for each device of the owner's settings
    group_events.py     what the workers report, as reports of one trainer

Importing this package imports nothing.
"""
