"""Images as uint8 tensors, and their order and augmentation in training.

    source       the table of sources, and open_source
    image_set    interface of sources: SourceInfo, and the protocols Source and Images
    digits, folder/, parquet/    the sources
    memory_set   ImageSet: a split kept in memory; encoded_set: EncodedSet, read and decoded on demand
    jpeg_set     JpegSet: like EncodedSet, but JPEGs are decoded by nvJPEG on the network's device
    decode/      image files to pixels
    preprocessing    settings for resizing, normalization and augmentation; augment/ applies them
    seeded       random numbers as pure functions of (purpose, seed, epoch, sample)
    order/       order of samples
    loader       Loader: a rank's batches from any step, read by loader workers
    node_cache   one file shared by all processes of a node

Rank and world size are arguments; nothing here uses torch.distributed or Ray. Normalization happens on the device, in
training/.
"""
