"""Files that survive: written whole or not at all, and held by one process at a time. Standard library only."""
