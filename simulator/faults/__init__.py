"""Faults as data, and what makes a simulated node fail or lie."""
