"""A folder of images with a folder for each class: listed into an index, read image by image."""
