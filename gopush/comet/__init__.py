"""Holds the clients: one long connection each, one channel for each key."""
