"""Real member processes under fault, and the audit of every certificate they make."""
