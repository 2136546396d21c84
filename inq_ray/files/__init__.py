"""Files that are written whole or not at all, and locks between processes. Standard library only."""
