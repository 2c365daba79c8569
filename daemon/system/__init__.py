"""What this process asks of the operating system: memory, open files and threads."""
