"""The real `Network` port: py-libp2p for control, gossip and discovery, TLS 1.3 for bulk. Nothing outside imports libp2p."""
