"""Image folders with a folder per class: listed into an index, read image by image."""
