"""One run from start to end, told by whom it reports to, not by whom it was launched."""
