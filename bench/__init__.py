"""How fast gopush is, measured beside what the kernel allows: `make bench`, docs/performance.md."""
