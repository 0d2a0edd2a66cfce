"""A cluster of real processes under load, while its parts are killed, frozen, emptied and restarted.

`python -m tests.chaos` (or `make chaos`) runs the scenarios of scenarios.py and says what publishers and subscribers
saw of them; a scenario that breaks a rule makes it end with status 1.
"""
