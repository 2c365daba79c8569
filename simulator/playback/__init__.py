"""Plays stories, judges what came of them, and reports it."""
