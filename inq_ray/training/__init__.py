"""One run from start to end, independent of how it was launched."""
