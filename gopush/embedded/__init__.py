"""All of gopush in one process: alone, or a member of a cluster of equals."""
