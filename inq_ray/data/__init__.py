"""Images as uint8 tensors, and the order and augmentation in which training sees them.

    source           open_source: a name, a path or an address -> a Source of two splits
    image_set        what a source hands out: SourceInfo; Images, the interface of a split; ImageSet, one in memory
    encoded_set      EncodedSet: a split whose images are read and decoded when they are asked for

    digits           scikit-learn's handwritten digits
    parquet          Parquet in the layout of the Hugging Face hub: small images in memory, others streamed
    image_folder     a folder for each class: train/CLASS/*.JPEG
    address          paths and addresses (s3://...), and trying again where a storage does not answer
    fence            what links in a folder of data must not lead out of

    loader           Loader: a rank's batches from any step on, read by loader workers
    order            which sample comes when: pure functions of (seed, epoch); group_order where row groups are read
    transforms       crops and flips of small images: pure functions of (seed, epoch, sample)
    image_transform  the same from bytes of any image: decoding, random crops, flips, validation's resize
    policy           automatic augmentation and erasing; batch_mix: mixup and cutmix
    counter_hash     the random numbers of all of them
    node_cache       one file for all processes of a node

Nothing here knows of torch.distributed or Ray: rank and world size are arguments. Normalization happens on the device,
in training/.
"""

from inq_ray.data.augment.crop_flip import Augmentation, crop_flip
from inq_ray.data.image_set import Images, Samples, Source, SourceInfo
from inq_ray.data.loader import Batch, Loader, eval_requests, steps_per_epoch, train_requests
from inq_ray.data.memory_set import ImageSet
from inq_ray.data.order.epoch import epoch_order, holdout, rank_slice
from inq_ray.data.preset import Policy, Preset
from inq_ray.data.source import open_source

__all__ = [
    "Augmentation",
    "Batch",
    "ImageSet",
    "Images",
    "Loader",
    "Policy",
    "Preset",
    "Samples",
    "Source",
    "SourceInfo",
    "crop_flip",
    "epoch_order",
    "eval_requests",
    "holdout",
    "open_source",
    "rank_slice",
    "steps_per_epoch",
    "train_requests",
]
