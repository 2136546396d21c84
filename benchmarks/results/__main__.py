"""Keeps results of runs, and makes the documents that show them.

    python -m benchmarks.results run --bits 5 4 3 2 --seeds 0 1 2 --random 5
    python -m benchmarks.results collect RUN_FOLDER... --commit SHA --command "python jobs/quantize_imagenet.py ..."
    python -m benchmarks.results keep RUN_FOLDER...
    python -m benchmarks.results write
    python -m benchmarks.results check

A run with --holdout is one by which something was chosen; the others are final. Exit status 1: documents differ from
what the records say. 2: it could not be done as asked.
"""

import argparse
import difflib
import shutil
import sys
from pathlib import Path

from benchmarks.results.groups import groups_of, main_groups
from benchmarks.results.kept import digest, packed, restore
from benchmarks.results.page import page
from benchmarks.results.picture import draw
from benchmarks.results.places import Places
from benchmarks.results.record import as_text, read_records, record_of
from benchmarks.results.series import Row, commit_of, rows_of, run_rows
from benchmarks.results.tables import between_marks, readme_body
from inq_ray.files.whole import whole, write_text
from inq_ray.training.run_folder import RunFolder

_ROOT = Path(__file__).resolve().parents[2]


def main(arguments: list[str], places: Places | None = None) -> int:
    """Does what a subcommand says; returns the exit status."""
    parsed = _parser().parse_args(arguments)
    places = places or Places(_ROOT)
    try:
        if parsed.action == "run":
            return run(parsed, places)
        if parsed.action == "collect":
            return collect(parsed, places)
        if parsed.action == "keep":
            return keep(parsed.folders, places)
        return write(places) if parsed.action == "write" else check(places)
    except (OSError, ValueError) as error:
        print(f"results: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return 2


def run(parsed: argparse.Namespace, places: Places) -> int:
    """Makes the runs of the table that have no record yet, keeps each when it ends, and the weights of one a width."""
    commit = commit_of(places.root)
    rows = rows_of(parsed.bits, parsed.seeds, parsed.random, parsed.flags)
    rows = [row for row in rows if not (places.runs / f"{row.name}.json").is_file()]
    failed: list[str] = []

    def done(row: Row, status: int) -> None:
        if status != 0:
            print(f"{row.name}: FAILED with exit status {status}, see {parsed.storage / row.name}.log", flush=True)
            failed.append(row.name)
            return
        print(f"{row.name}: ended", flush=True)
        if commit_of(places.root) != commit:
            raise ValueError(f"{row.name}: the checkout has moved on from {commit} while it ran")
        folder = RunFolder((parsed.storage / row.name).absolute())
        record = record_of(folder, commit=commit, command=row.command, hardware=parsed.hardware)
        places.runs.mkdir(parents=True, exist_ok=True)
        write_text(places.runs / f"{row.name}.json", as_text(record))
        if row.strategy == "pruning" and row.seed == parsed.seeds[0]:
            keep([folder.path], places)

    run_rows(rows, places.root, parsed.storage, parsed.at_once, done)
    return 1 if failed else write(places)


def collect(parsed: argparse.Namespace, places: Places) -> int:
    """Keeps a record of each run; all are made before the first is written."""
    records = [
        record_of(
            RunFolder(folder.absolute()),
            commit=parsed.commit,
            command=parsed.command,
            num_images=parsed.images,
            hardware=parsed.hardware,
            note=parsed.note,
            against=parsed.against,
        )
        for folder in parsed.folders
    ]
    for record in records:
        folder = places.runs if "tensors" in record else places.choices
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{record['name']}.json"
        write_text(path, as_text(record))
        print(f"{path}: {record['num_correct']:,} of {record['num_images']:,} right, {record['top1']:.2f} %")
    return 0


def keep(folders: list[Path], places: Places) -> int:
    """Keeps the final weights of runs, of which there must be records."""
    of_name = {record["name"]: record for record in read_records(places.runs)}
    for folder in folders:
        name = folder.absolute().name
        if name not in of_name:
            raise ValueError(f"{name}: collect the run first, there is no {places.runs / name}.json")
        path = places.weights / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as beside:
            beside.write_bytes(packed(folder))
            if digest(restore(beside)) != of_name[name]["verification"]["digest"]:
                raise ValueError(f"{name}: the weights in {folder} are not those of its record")
        print(f"{path}: {path.stat().st_size:,} bytes, restored to the bits of the run")
    return 0


def write(places: Places) -> int:
    """Makes the README's part, the page and the picture."""
    places.page.parent.mkdir(parents=True, exist_ok=True)
    for path, text in _texts(places).items():
        write_text(path, text)
        print(path)
    groups = groups_of(read_records(places.runs))
    if main_groups(groups):
        places.picture.parent.mkdir(parents=True, exist_ok=True)
        draw(groups, places.picture)
        print(f"{places.picture}: {places.picture.stat().st_size:,} bytes")
    return 0


def check(places: Places) -> int:
    """Makes README's part and page in memory, and the kept weights' digests; says where files are not the same."""
    lines: list[str] = []
    for path, text in _texts(places).items():
        found = path.read_text(encoding="utf-8") if path.is_file() else ""
        name = str(path.relative_to(places.root))
        lines += difflib.unified_diff(found.splitlines(), text.splitlines(), name, "by the records", lineterm="", n=0)
    records = read_records(places.runs)
    if main_groups(groups_of(records)) and not places.picture.is_file():
        lines.append(f"{places.picture.relative_to(places.root)} is missing")
    for record in records:
        path = places.weights / f"{record['name']}.safetensors"
        if path.is_file() and digest(restore(path)) != record["verification"]["digest"]:
            lines.append(f"{path.relative_to(places.root)} has another digest than its record")
    if not lines:
        print(f"results: documents are what {len(records)} records say")
        return 0
    width, height = shutil.get_terminal_size((120, 30))
    shown = lines[: height - 3]
    print("\n".join(line[:width] for line in shown))
    more = f" ({len(lines) - len(shown)} more lines)" if len(lines) > len(shown) else ""
    print(f"results: these differ{more}: give `make results`, and look at what changes", file=sys.stderr)
    return 1


def _texts(places: Places) -> dict[Path, str]:
    """The documents as the records say."""
    groups = groups_of(read_records(places.runs))
    readme = places.readme.read_text(encoding="utf-8")
    return {places.readme: between_marks(readme, readme_body(groups)), places.page: page(places)}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.results", description="Keeps and shows results of runs."
    )
    actions = parser.add_subparsers(dest="action", required=True)
    series = actions.add_parser("run", help="make the runs of the table that have no record yet, and keep them")
    series.add_argument("--bits", nargs="*", type=int, default=[5, 4, 3, 2], choices=(5, 4, 3, 2))
    series.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    series.add_argument(
        "--random", nargs="*", type=int, default=[], metavar="BITS", help="random partition too, at these"
    )
    series.add_argument("--at-once", type=int, default=1, help="runs side by side")
    series.add_argument("--storage", type=Path, default=Path("runs/results"), help="folder of the runs and their logs")
    series.add_argument("--hardware", help="what it runs on, in words")
    series.add_argument("flags", nargs="*", help="more flags of the job, behind --")
    collected = actions.add_parser("collect", help="write docs/results/runs/NAME.json (choices/ for held-out runs)")
    collected.add_argument("folders", nargs="+", type=Path, metavar="RUN_FOLDER")
    collected.add_argument("--commit", required=True, help="of the code that ran")
    collected.add_argument("--command", required=True, help="that ran; {seed} and {name} stand for each run's own")
    collected.add_argument("--images", type=int, help="on which accuracy was measured, where the data are not here")
    collected.add_argument("--hardware", help="what it ran on, in words")
    collected.add_argument("--note", help="what is to be said of it")
    collected.add_argument("--against", help="name of the choice to make a pair with; {seed} stands for the run's own")
    kept = actions.add_parser("keep", help="write docs/results/weights/NAME.safetensors")
    kept.add_argument("folders", nargs="+", type=Path, metavar="RUN_FOLDER")
    actions.add_parser("write", help="write README's part, docs/results/README.md and docs/images/results.png")
    actions.add_parser("check", help="fail where README's part or the page differ from what the records say")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
