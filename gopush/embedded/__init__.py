"""comet, message and web in one process, without ZooKeeper and Redis."""
