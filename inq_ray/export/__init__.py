"""From frozen weights to files, and back: exact weights from codes, a file for each format, verification."""
