"""Images as uint8 tensors, and the order and augmentation in which training sees them.

    source       the table of sources, and open_source, which goes through it
    image_set    what a source hands out: SourceInfo, and the protocols Source and Images
    digits, folder/, parquet/    the sources
    memory_set   ImageSet: a split kept in memory; encoded_set: EncodedSet, read and decoded when asked for
    decode/      image files -> pixels
    preset       how images are resized and normalized, and what training does to them; augment/ does it
    seeded       random numbers as pure functions of (purpose, seed, epoch, sample)
    order/       which sample comes when
    loader       Loader: a rank's batches from any step on, read by loader workers
    node_cache   one file for all processes of a node

Rank and world size are arguments: nothing here knows of torch.distributed or Ray. Normalization happens on the device,
in training/.
"""
