"""Which peer a call goes to, in which batch, and what happens when a peer fails."""
