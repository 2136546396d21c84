"""From frozen weights to files, and back: exact weights from codes, two files written whole, and their proof."""
