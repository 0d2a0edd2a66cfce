"""HTTP/1.1 for the APIs and the statistics: a lean channel on httptools, plain functions as handlers."""
