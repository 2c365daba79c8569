"""Drives the round machine: its events, its actions and its log."""
