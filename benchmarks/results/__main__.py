"""Keep results of runs, and make the documents that show them.

    python -m benchmarks.results collect RUN_FOLDER... --commit SHA --command "python jobs/quantize_imagenet.py ..."
    python -m benchmarks.results keep RUN_FOLDER...
    python -m benchmarks.results write
    python -m benchmarks.results check

Runs with --holdout are kept as choices, the others as final runs. Exit status 1: the documents differ from what the
records say. 2: an error, in one line.
"""

import argparse
import difflib
import re
import sys
from pathlib import Path

from benchmarks.results.groups import groups_of, main_groups
from benchmarks.results.page import page
from benchmarks.results.picture import draw
from benchmarks.results.record import as_text, read_records, record_of
from benchmarks.results.tables import readme_body
from inq_ray.export.packed.reader import SUFFIX, read
from inq_ray.files.whole import whole, write_text
from inq_ray.verification import packed_in

_ROOT = Path(__file__).resolve().parents[2]
_MARKED = re.compile(r"(<!-- results:begin -->\n).*?(\n<!-- results:end -->)", re.DOTALL)


def main(arguments: list[str], root: Path = _ROOT) -> int:
    """Run a subcommand on the checkout in `root`; return the exit status."""
    parsed = _parser().parse_args(arguments)
    try:
        return int(parsed.run(root, parsed))
    except (OSError, ValueError) as error:
        print(f"results: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return 2


def collect(root: Path, parsed: argparse.Namespace) -> int:
    """Keep a record of each run, in docs/results/runs/, or choices/ if images were held out."""
    if bool(parsed.against) != bool(parsed.question):
        raise ValueError("give --against and --question together: the page shows who is compared, and why")
    options = {"commit": parsed.commit, "command": parsed.command, "num_images": parsed.images}
    for record in [record_of(folder.absolute(), **options) for folder in parsed.folders]:
        path = root / "docs/results" / ("runs" if "tensors" in record else "choices") / f"{record['name']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        record |= {"hardware": parsed.hardware, "note": parsed.note}
        if parsed.against:
            record["against"] = parsed.against.replace("{seed}", str(record["seed"]))
            record["question"] = parsed.question
        write_text(path, as_text(record))
        print(f"{path}: {record['num_correct']:,} of {record['num_images']:,} right, {record['top1']:.2f} %")
    return 0


def keep(root: Path, parsed: argparse.Namespace) -> int:
    """Keep the final weights of runs that have records, in docs/results/weights/."""
    digests = _digests(root)
    for folder in parsed.folders:
        name = folder.absolute().name
        if name not in digests:
            raise ValueError(f"{name}: collect the run first, it has no record in docs/results/runs")
        packed = packed_in(folder)
        if read(packed).digest != digests[name]:
            raise ValueError(f"{name}: the weights in {folder} are not those of its record")
        path = _weights(root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as temporary:
            temporary.write_bytes(packed.read_bytes())
        print(f"{path}: {path.stat().st_size:,} bytes")
    return 0


def write(root: Path, _: argparse.Namespace) -> int:
    """Write the README's part, docs/results/README.md and docs/images/results.png."""
    for path, text in _texts(root).items():
        write_text(path, text)
    groups = groups_of(read_records(root / "docs/results/runs"))
    if main_groups(groups):
        draw(groups, root / "docs/images/results.png")
    return 0


def check(root: Path, _: argparse.Namespace) -> int:
    """Fail if documents or kept weights differ from what the records say."""
    lines: list[str] = []
    for path, text in _texts(root).items():
        found = path.read_text(encoding="utf-8").splitlines()
        lines += difflib.unified_diff(found, text.splitlines(), str(path), "by the records", lineterm="", n=0)
    for name, expected in _digests(root).items():
        path = _weights(root, name)
        if path.is_file() and read(path).digest != expected:
            lines.append(f"the weights of {name} have another digest than its record")
    print("\n".join(line[:120] for line in lines[:20]) or "results: the documents show what the records say")
    if lines:
        print(f"results: {len(lines)} lines differ: run `make results`, and look at what changes", file=sys.stderr)
    return 1 if lines else 0


def _texts(root: Path) -> dict[Path, str]:
    """Return the documents by path."""
    readme = root / "README.md"
    body = readme_body(root / "docs/results")
    text, num = _MARKED.subn(lambda marks: f"{marks[1]}\n{body}\n{marks[2]}", readme.read_text("utf-8"))
    if num != 1:
        raise ValueError(f"{readme} must have <!-- results:begin --> and then <!-- results:end -->")
    return {readme: text, root / "docs/results/README.md": page(root / "docs/results")}


def _weights(root: Path, name: str) -> Path:
    return root / "docs/results/weights" / f"{name}{SUFFIX}"


def _digests(root: Path) -> dict[str, str]:
    """Return the digest of the final weights of each run that has a record."""
    return {each["name"]: each["verification"]["digest"] for each in read_records(root / "docs/results/runs")}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.results", description="Keep and show results of runs.")
    actions = parser.add_subparsers(dest="action", required=True)
    for action in (collect, keep, write, check):
        actions.add_parser(action.__name__, help=action.__doc__).set_defaults(run=action)
    for each in (collected := actions.choices["collect"], actions.choices["keep"]):
        each.add_argument("folders", nargs="+", type=Path, metavar="RUN_FOLDER")
    collected.add_argument("--commit", required=True, help="commit of the code that ran")
    collected.add_argument("--command", required=True, help="command that ran; {seed} and {name} are the run's own")
    collected.add_argument("--images", type=int, help="number of images of the test set, if the data are not here")
    collected.add_argument("--hardware", help="description of the machine")
    collected.add_argument("--note", help="remark below the tables")
    collected.add_argument("--against", help="held-out run to compare with (B); {seed} stands for the run's own")
    collected.add_argument("--question", help="question that the comparison answers; required with --against")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
