"""Keeps what must be delivered later: the log of each key, in a store."""
