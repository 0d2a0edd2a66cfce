"""gopush from the outside: what devices and services do, for the command line. Plain sockets, no reactor."""
