"""Images as uint8 tensors, decoded once per node, and the order and augmentation in which training sees them.

    source         open_source: a name or a folder -> a Source of two splits
    image_set      what a source hands out: SourceInfo, ImageSet
    parquet        Parquet in the layout of the Hugging Face hub; parquet_files its footers, parquet_pixels its rows
    digits         scikit-learn's handwritten digits
    decode         bytes of a file -> pixels
    node_cache     one decoded file for all processes of a node
    order          which sample comes when: pure functions of (seed, epoch)
    transforms     crops and flips: pure functions of (seed, epoch, sample)
    counter_hash   the random numbers of both
    loader         train_loader, eval_loader: a rank's batches from any step on

Nothing here knows of torch.distributed or Ray: rank and world size are arguments. Normalization happens on the device,
in training/.
"""

from inq_ray.data.image_set import ImageSet, SourceInfo
from inq_ray.data.loader import Batch, eval_loader, steps_per_epoch, train_loader
from inq_ray.data.order import epoch_order, holdout, rank_slice
from inq_ray.data.source import Source, open_source
from inq_ray.data.transforms import Augmentation, crop_flip

__all__ = [
    "Augmentation",
    "Batch",
    "ImageSet",
    "Source",
    "SourceInfo",
    "crop_flip",
    "epoch_order",
    "eval_loader",
    "holdout",
    "open_source",
    "rank_slice",
    "steps_per_epoch",
    "train_loader",
]
