"""Speaks HTTP to services and clients: look-up, offline messages, pushes."""
