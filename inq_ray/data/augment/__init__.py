"""Transforms of images for training and validation: crops, flips, auto-augmentation, erasing, Mixup and CutMix."""
