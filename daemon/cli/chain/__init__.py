"""What the commands that talk to a chain share."""
