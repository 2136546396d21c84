"""Order of samples and their assignment to ranks: pure functions of (seed, epoch)."""
