"""What twistd runs, the same for every role: options, the service, listeners, logs, the garbage collector."""
