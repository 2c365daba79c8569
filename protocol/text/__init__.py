"""Text from people and for people: printable text, nearest names, TOML documents."""
