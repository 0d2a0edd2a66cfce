"""Connections of all kinds, and the HTTP that every port of a process speaks: twisted.web behind a short cut."""
