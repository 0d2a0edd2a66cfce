"""The delivery contract on a simulated clock and network: seeded, without sockets, exactly repeatable.

All of gopush's logic is the real one; simulated are time, the network between processes, the clients, and what
goes wrong with them. `python -m tests.simulation --help` runs schedules by the thousand.
"""
