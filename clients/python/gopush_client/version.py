"""Which version this is: read from here when the package is built."""

__version__ = "0.1.0"
