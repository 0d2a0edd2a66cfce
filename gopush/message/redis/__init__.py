"""The store in Redis servers."""
