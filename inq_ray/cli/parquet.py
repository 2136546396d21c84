"""`inq-ray parquet` and jobs/make_parquet.py: a folder of images as Parquet in the layout of the Hugging Face hub.

Images are written in shuffled order; see docs/data.md. Exit status 0: all is written. 1: writing failed, and what is
there is not complete. 2: it could not start as asked.
"""

import sys
from dataclasses import dataclass

import tyro

from inq_ray.data.parquet.writer import Plan, find_shards, plan_folder, remove, write_shards
from inq_ray.files.shown import one_line
from inq_ray.storage.address import Location, locate
from inq_ray.training.config.checks import count
from inq_ray.training.flags.read import in_one_line


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Write images of train/CLASS/ and val/CLASS/ as train-*.parquet and validation-*.parquet; bytes stay the same."""

    data: str
    """Folder of train/CLASS/*.JPEG and val/CLASS/*.JPEG: a path or an address (s3://, gs://, hdfs://)."""
    follow_links: bool = False
    """Follow links that lead out of the folder: only if you trust who made it."""
    output: str
    """Folder for the shards: a path or an address."""
    rows_per_group: int = 100
    """Images in a row group: what training reads at once."""
    shard_size: int = 500
    """Size of a file in MB, about."""
    seed: int = 0
    """Of the order in which images are written."""
    overwrite: bool = False
    """Remove the shards that the folder has, before the first new one is written."""
    dry_run: bool = False
    """Check everything, print the plan, and write nothing."""

    def __post_init__(self) -> None:
        for name, least in (("rows_per_group", 1), ("shard_size", 1), ("seed", 0)):
            count(least)(f"--{name.replace('_', '-')}", getattr(self, name))


def main(arguments: list[str], program: str) -> int:
    """Do what the flags ask for.

    Args:
        arguments: Words of the command line.
        program: Name that messages begin with.

    Returns:
        The exit status.
    """
    status = 2
    try:
        flags = in_one_line(lambda: tyro.cli(Flags, args=arguments))
        output = locate(flags.output, "--output")
        old = find_shards(output)
        if old and not flags.overwrite:
            raise ValueError(f"{output.name} has shards ({old[0].name}, ...): pass --overwrite, or another --output")
        plans = plan_folder(
            flags.data, seed=flags.seed, shard_bytes=flags.shard_size * 10**6, follow_links=flags.follow_links
        )
        for plan in plans:
            size = f"{len(plan.order):,} images, about {plan.num_bytes / 1e6:,.0f} MB"
            print(f"{plan.split}: {size}, {len(plan.class_names)} classes, {plan.num_shards} shards")
        if "train" not in {plan.split for plan in plans}:
            print(f"{program}: note: no images in {flags.data}/train, validation alone", file=sys.stderr)
        if not flags.dry_run:
            status = 1
            write(flags, output, old, plans)
    except (ValueError, TimeoutError) as error:
        print(one_line(f"{program}: {error}", 300), file=sys.stderr)
        return status
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return 130
    return 0


def write(flags: Flags, output: Location, old: list[Location], plans: list[Plan]) -> None:
    """Write all shards, after removing the old ones."""
    for file in old:
        remove(file)
    for plan in plans:
        for shard in write_shards(plan, output, rows_per_group=flags.rows_per_group):
            print(f"{shard.file.name}: {shard.num_images:,} images, {shard.num_bytes / 1e6:,.1f} MB", flush=True)
