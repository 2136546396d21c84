"""One run from start to end, whoever launched it."""
