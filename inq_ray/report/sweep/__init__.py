"""Report of a sweep: its files and its page."""
