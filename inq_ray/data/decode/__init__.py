"""The bytes of image files -> pixels."""
