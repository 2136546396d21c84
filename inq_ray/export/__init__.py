"""From frozen weights to files, and back: exact weights from codes, files of several formats, and their verification."""
