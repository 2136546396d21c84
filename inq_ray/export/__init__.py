"""Export of frozen weights to files, and back: exact weights from codes, a file per format, verification."""
