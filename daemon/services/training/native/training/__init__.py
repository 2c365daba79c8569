"""Local training between rounds."""
