"""Search for the splits in a folder of data: in itself, or a few levels down, as in archives and caches."""

import itertools
import os

import pyarrow.fs as pafs

from inq_ray.data.folder.listing import find_splits, scan
from inq_ray.data.parquet.files import has_parquet
from inq_ray.storage.address import Location
from inq_ray.storage.fence import Fence

# ILSVRC/Data/CLS-LOC/train, datasets--NAME/snapshots/COMMIT/data/train-00000-of-00001.parquet
_DEPTH = 3
_MOST_FOLDERS = 64
_NUM_NAMED = 4


def find_root(location: Location, fence: Fence | None) -> Location:
    """Return the folder itself if it has splits, else the only subfolder that has; itself if none has.

    Args:
        location: The folder named by the user; need not exist.
        fence: Folder that the result must not lie outside of.

    Raises:
        ValueError: Several folders have splits, a link leads out of the fence, or the storage fails.
    """
    if not location.lists_folders or not location.exists() or location.info().type != pafs.FileType.Directory:
        return location
    level = [location]
    for _ in range(1 + _DEPTH):
        found = [folder for folder in level if find_splits(folder) or has_parquet(folder)]
        if len(found) > 1:
            names = ", ".join(folder.name for folder in found[:_NUM_NAMED]) + ", ..." * (len(found) > _NUM_NAMED)
            raise ValueError(f"{location.name} contains several sets of images: pass one of them with --data: {names}")
        if found:
            if fence:
                fence.check(found[0].path)
            return found[0]
        below = (folder.join(os.fsdecode(entry.path)) for folder in level for entry in scan(folder) if entry.is_folder)
        level = list(itertools.islice(below, _MOST_FOLDERS))
    return location
