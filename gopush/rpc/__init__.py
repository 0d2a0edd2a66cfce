"""Where comet, message and web meet: what they say to each other, and how."""
