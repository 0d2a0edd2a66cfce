"""gopush: a push-message server cluster on Twisted (see docs/architecture.md)."""

__version__ = "0.1.0"
