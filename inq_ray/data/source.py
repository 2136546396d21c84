"""A name, a path or an address -> data to train and test on."""

import platform
from pathlib import Path

from inq_ray.data.image_set import Source
from inq_ray.data.preset import Policy, Preset

_LAYOUTS = (
    "a folder of train/CLASS/*.JPEG and val/CLASS/*.JPEG, or Parquet in Hugging Face's layout (train-*.parquet, ...)"
)


def open_source(
    data: str,
    *,
    preset: Preset | None = None,
    policy: Policy | None = None,
    index_folder: Path | None = None,
    fingerprint: str | None = None,
    follow_links: bool = False,
) -> Source:
    """Open data without decoding them.

    Args:
        data: "digits"; a folder with train/ and val/ of a folder for each class; a folder, file or glob of Parquet in
            the layout of the Hugging Face hub: train-*.parquet and test-*.parquet or validation-*.parquet, with a
            struct column `image` or `img` {bytes, path} and an integer column `label`. Paths, or addresses (s3://,
            gs://, hdfs://, file://).
        preset: How the network wants to see images; of small ones of one size, kept in memory, only mean and standard
            deviation. digits have their own.
        policy: What training does to images.
        index_folder: Where the index of an image folder is kept; by default in the cache of this machine.
        fingerprint: What the data must be, where that is known: those with which a run was started elsewhere.
        follow_links: Whether links in a folder may lead out of it.

    Returns:
        The source.

    Raises:
        ValueError: There is no such data, or it is not of this layout, or other data than those of the fingerprint, or
            a link leads out of the folder; one line that names what is wrong.
    """
    preset, policy = preset or Preset(), policy or Policy()
    source = _open(data, preset, policy, index_folder, fingerprint, follow_links)
    if fingerprint not in (None, source.info.fingerprint):
        raise ValueError(
            f"{data} holds other data on {platform.node()} than where the run was started: every node must see the same"
        )
    if source.info.is_streamed or (policy.auto_augment == "none" and policy.random_erasing == 0):
        return source
    from inq_ray.data.augment.policy_set import PolicySource

    return PolicySource(source, policy)


def _open(
    data: str,
    preset: Preset,
    policy: Policy,
    index_folder: Path | None,
    fingerprint: str | None,
    follow_links: bool,
) -> Source:
    if data == "digits":
        from inq_ray.data.digits import DigitsSource

        return DigitsSource()
    if not data:
        raise ValueError(f"no data given: pass 'digits', {_LAYOUTS}")
    from inq_ray.data.folder.source import FolderSource, is_image_folder
    from inq_ray.data.parquet.source import ParquetSource
    from inq_ray.storage.address import locate

    if "*" not in data and is_image_folder(location := locate(data)):
        return FolderSource(location, preset, policy, index_folder, fingerprint=fingerprint, follow_links=follow_links)
    return ParquetSource(data, preset, policy, follow_links=follow_links)
