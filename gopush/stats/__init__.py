"""What a process says about itself: `/stat`, `/metrics`, `/health`, and periodic summaries in the log."""
