"""What this process asks of the operating system: memory, open files, threads, and its sensors.

`machine_sensors.py` measures the machine for the limits of its volunteer, with `user_activity.py`,
`power_supply.py`, `cpu_sensors.py` and `gpu_sensors.py`. `service_manager.py` talks to systemd.
"""
