"""Which sample comes when, and on which rank: pure functions of (seed, epoch)."""
