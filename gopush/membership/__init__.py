"""Who is alive: the view, ZooKeeper, and what a process registers there."""
