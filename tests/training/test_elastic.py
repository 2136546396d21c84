"""A run that goes on with other numbers of ranks: the same samples in the same order, all ranks alike, repeatable."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from inq_ray.data.image_set import Images
from inq_ray.data.loader import Request
from inq_ray.training.config import RunConfig
from inq_ray.training.loop import batches as loop
from inq_ray.training.loop.trainer import EpochState
from inq_ray.training.report.incident import Incident
from inq_ray.training.report.progress import Epoch
from inq_ray.training.run_folder import RunFolder
from tests.data.parquet_files import CLASSES, encode, random_images, write_parquet
from tests.ranks import run_ranks
from tests.training.runs import StoppedError, after_each_step, needs_digits, read_summary, run_here, tiny_config

pytestmark = [needs_digits, pytest.mark.system]

# (epoch of the run, step) -> the samples that a rank took.
Seen = dict[tuple[int, int], list[int]]


def digits(storage: Path, name: str) -> RunConfig:
    """Six steps an epoch of a batch that neither 3 nor 4 divides; a checkpoint after every second step."""
    config = tiny_config(storage, name, training={"batch_size": 203, "float_epochs": 2, "epochs": 2})
    return config.replace(output={"checkpoint_every": "2"}, cluster={"num_workers": "1..4"})


def groups(storage: Path, name: str) -> RunConfig:
    """Images of several sizes, which are read group by group of Parquet; each start says another --num-workers."""
    folder = storage / "images"
    if not folder.is_dir():
        folder.mkdir()
        for split, num in (("train", 64), ("test", 8)):
            wide, high = random_images(num, height=18, width=24), random_images(num, height=25, width=19)
            blobs = [encode((wide, high)[i % 2][i]) for i in range(num)]
            file = folder / f"{split}-00000-of-00001.parquet"
            write_parquet(file, blobs, [i % len(CLASSES) for i in range(num)], row_group_size=3)
    return digits(storage, name).replace(
        data={"data": str(folder), "crop_size": 16, "loader_workers": 0},
        training={"batch_size": 10},
        cluster={"num_workers": 3},
    )


class Part(NamedTuple):
    """What one rank saw of one start: `counts` is the number of samples in its sums at each epoch's last step."""

    digest: str | None
    notes: list[str]
    seen: Seen
    counts: dict[tuple[int, int], float]


class Whole(NamedTuple):
    """A run over several starts: its digest, its last notes, and of each start the global batches."""

    digest: str
    notes: list[str]
    batches: list[Seen]
    counts: dict[tuple[int, int], float]


def run_until(config: RunConfig, stop: tuple[int, int, int] | None) -> Part:
    """Runs, on each rank, to a (stage, epoch, step), or to its end."""
    requests = loop.train_requests  # type: ignore[attr-defined]
    part = Part(None, [], {}, {})

    def stop_there(epoch: Epoch, state: EpochState) -> None:
        if state.step == epoch.steps:
            part.counts[epoch.stage, epoch.epoch] = state.sums[2].item()
        if (epoch.stage, epoch.epoch, state.step) == stop:
            raise StoppedError

    def recorded(images: Images, indices: torch.Tensor, **options: Any) -> Iterator[Request]:
        for request in requests(images, indices, **options):
            part.seen[options["epoch"], request.step] = request.samples.tolist()
            yield request

    loop.train_requests = recorded  # type: ignore[attr-defined]
    try:
        with after_each_step(stop_there):
            finished = run_here(config)
    except StoppedError:
        return part
    finally:
        loop.train_requests = requests  # type: ignore[attr-defined]
    notes = [event.text for event in finished.told.events if isinstance(event, Incident)]
    return part._replace(digest=finished.summary["digest"], notes=notes)


def run_at(config: RunConfig, sizes: list[int], stops: list[tuple[int, int, int]]) -> Whole:
    """Runs on one number of ranks after the other; each start says its own where the configuration has no range."""
    total, is_elastic = config.training.batch_size, isinstance(config.cluster.num_workers, str)
    batches: list[Seen] = []
    counts: dict[tuple[int, int], float] = {}
    parts: list[Part] = []
    for size, stop in zip(sizes, [*stops, None], strict=True):
        start = config if is_elastic else config.replace(cluster={"num_workers": size})
        parts = run_ranks(run_until, size, start, stop)
        assert len({part.digest for part in parts}) == 1, "digests of ranks"
        batches.append({})
        for rank, part in enumerate(parts):
            assert part.seen.keys() == parts[0].seen.keys()
            for place, samples in part.seen.items():
                assert len(samples) == (rank + 1) * total // size - rank * total // size
                batches[-1][place] = batches[-1].get(place, []) + samples
        counts |= {place: sum(part.counts[place] for part in parts) for place in parts[0].counts}
    assert parts[0].digest is not None
    return Whole(parts[0].digest, parts[0].notes, batches, counts)


STOPS = [(0, 2, 3), (1, 2, 5)]


@pytest.mark.long
@pytest.mark.parametrize("made", [digits, groups])
def test_the_same_samples_in_the_same_order_on_3_then_2_then_4_ranks(made: Any, tmp_path: Path) -> None:
    calm = run_at(made(tmp_path, "calm"), [3], [])
    config = made(tmp_path, "changed")
    changed = run_at(config, [3, 2, 4], STOPS)
    assert changed.notes == ["continuing from checkpoint-01-0001-00000004, on 4 worker(s) after 2"]
    places = [(min(batches), max(batches)) for batches in changed.batches]
    assert places == [((0, 0), (1, 2)), ((1, 2), (3, 4)), ((3, 4), (5, 5))]
    for batches in changed.batches:
        assert batches == {place: calm.batches[0][place] for place in batches}
    assert set().union(*changed.batches) == set(calm.batches[0])
    assert changed.counts == calm.counts == dict.fromkeys(calm.counts, 6.0 * config.training.batch_size)
    summary = read_summary(RunFolder.planned(config))
    assert (summary["world_size"], summary["world_sizes"]) == (4, [3, 2, 4])
    if made is digits:
        again = run_at(made(tmp_path, "again"), [3, 2, 4], STOPS)
        assert again.digest == changed.digest
