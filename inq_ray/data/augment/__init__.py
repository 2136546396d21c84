"""What training and validation do to images: crops, flips, automatic augmentation, erasing, mixup and CutMix."""
