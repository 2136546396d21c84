"""Report of a run: its files, what follows from them, and its page."""
