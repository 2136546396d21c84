"""`inq-ray parquet` and jobs/make_parquet.py: a folder of images as Parquet in the layout of the Hugging Face hub.

Images are written in shuffled order; see docs/data.md. Exit status 0: everything is written. 1: writing failed, and the
output is incomplete. 2: the conversion could not start.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from inq_ray.cli.status import complain, exit_status
from inq_ray.data.parquet.writer import Plan, find_shards, plan_folder, remove, write_shards
from inq_ray.files.shown import counted
from inq_ray.storage.address import Location, locate
from inq_ray.training.config.checks import count
from inq_ray.training.config.option import check_options, declared, option
from inq_ray.training.flags.read import read_flags


def _is_given(flag: str, value: str) -> str:
    if not value:
        raise ValueError(f"{flag} is missing: give --data DIR, a folder of images, and --output DIR, for the shards")
    return value


def _is_never_a_name(_: str) -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Input, output and layout."""

    data: str = option(
        "",
        "Folder with train/CLASS/*.JPEG and val/CLASS/*.JPEG: a path or an address (s3://, gs://, hdfs://).",
        _is_given,
        is_first=True,
        path=_is_never_a_name,
    )
    output: str = option(
        "", "Folder for the shards: a path or an address.", _is_given, is_first=True, path=_is_never_a_name
    )
    follow_links: bool = option(
        False, "Follow links that lead out of the folder; only for folders from people you trust.", is_first=True
    )
    rows_per_group: int = option(
        100, "Images per row group, which is the unit that training reads.", count(1), is_first=True
    )
    shard_size: int = option(500, "Approximate size of a file, MB.", count(1), is_first=True)
    seed: int = option(0, "Random seed for the order of the images.", count(0), is_first=True)
    overwrite: bool = option(
        False, "Remove existing shards from the output folder before writing new ones.", is_first=True
    )
    dry_run: bool = option(False, "Check everything, print the plan, and write nothing.", is_first=True)

    def __post_init__(self) -> None:
        check_options(self)


def main(arguments: Sequence[str], program: str) -> int:
    """Run the command line.

    Args:
        arguments: Words of the command line.
        program: Program name for messages.

    Returns:
        The exit status.
    """
    return exit_status(program, lambda: execute(parse(arguments, program), program))


def parse(arguments: Sequence[str], program: str) -> Flags:
    """Parse the flags.

    Raises:
        ValueError: A flag or its value is not allowed; one line.
        SystemExit: After printing the requested help.
    """
    options = declared(Flags)
    what = (
        "Write images of train/CLASS/ and val/CLASS/ as train-*.parquet and validation-*.parquet, bytes unchanged."
        "\n\nExample: --data imagenet --output imagenet-parquet"
    )
    return Flags(**read_flags(arguments, options.values(), program=program, what=what, defaults=lambda _: {}))


def execute(flags: Flags, program: str) -> int:
    """Check the flags, print the plan, then write."""
    output = locate(flags.output, "--output")
    old = find_shards(output)
    if old and not flags.overwrite:
        raise ValueError(f"{output.name} has shards ({old[0].name}, ...): pass --overwrite, or another --output")
    plans = plan_folder(
        flags.data, seed=flags.seed, shard_bytes=flags.shard_size * 10**6, follow_links=flags.follow_links
    )
    for plan in plans:
        size = f"{counted(len(plan.order), 'image')}, about {plan.num_bytes / 1e6:,.0f} MB"
        print(f"{plan.split}: {size}, {counted(len(plan.class_names), 'class')}, {counted(plan.num_shards, 'shard')}")
    if "train" not in {plan.split for plan in plans}:
        print(f"{program}: note: no images in {flags.data}/train, writing validation only", file=sys.stderr)
    if not flags.dry_run:
        try:
            write(flags, output, old, plans)
        except (ValueError, TimeoutError) as error:
            complain(program, str(error))
            return 1
    return 0


def write(flags: Flags, output: Location, old: list[Location], plans: list[Plan]) -> None:
    """Write all shards, after removing the old ones."""
    for file in old:
        remove(file)
    for plan in plans:
        for shard in write_shards(plan, output, rows_per_group=flags.rows_per_group):
            print(
                f"{shard.file.name}: {counted(shard.num_images, 'image')}, {shard.num_bytes / 1e6:,.1f} MB", flush=True
            )
