"""Text for a terminal: the standard streams, columns, and a status as text."""
