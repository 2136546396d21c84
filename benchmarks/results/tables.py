"""The results as the README has them: tables, picture, commands, between two marks."""

import shlex
from collections.abc import Sequence

from benchmarks.results.groups import Group, differences, main_groups, main_of_each
from benchmarks.results.published import DATA, NETWORK, PUBLISHED

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
NOT_HERE = "<!-- not run: needs a GPU -->"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """A table of Markdown, of which the first columns are on the left."""
    marks = ["---"] * left + ["---:"] * (len(heads) - left)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (heads, marks, *rows)).replace("|  |", "| |")


def between_marks(text: str, body: str) -> str:
    """The text with another body between its marks.

    Raises:
        ValueError: the marks are not there, once each and in order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end) or BEGIN in after or END in before + after:
        raise ValueError(f"the README must have {BEGIN} and then {END}, once each")
    return f"{before}{BEGIN}\n\n{body.strip()}\n\n{END}{after}"


def readme_body(groups: Sequence[Group]) -> str:
    """What the README shows of all final runs."""
    shown = main_groups(groups)
    if not shown:
        return "No run is collected yet."
    parts = [main_table(shown), _explained(shown), comparison(groups)]
    parts.append("![top-1 after each stage, for each number of bits](docs/images/results.png)")
    parts.append("The command of each row; of its other runs only `--seed` and `--name` differ:")
    parts += commands(shown)
    return "\n\n".join(part for part in parts if part)


def main_table(groups: Sequence[Group]) -> str:
    """A row for each group."""
    heads = ("network", "data", "bits", "float", "quantized", "seeds", "change", "epochs", "minutes")
    rows = []
    for group in groups:
        first = group.first
        alike = [other for other in groups if other.key == group.key]
        what = f" ({differences(group, alike)})" if len(alike) > 1 else ""
        rows.append(
            (
                first["network"] + what,
                first["data"],
                str(first["bits"]),
                f"{first['float_top1']:.2f}",
                group.top1.text(),
                str(group.num_seeds),
                f"{group.change.mean:+.2f}",
                str(first["epochs"]["all"]),
                f"{group.minutes:.0f}" if group.minutes >= 10 else f"{group.minutes:.1f}",
            )
        )
    return table(heads, rows, left=2)


def _explained(groups: Sequence[Group]) -> str:
    """What the figures of the table are, and where the minutes were spent."""
    words: dict[str, None] = {}
    for group in groups:
        for record in group.records:
            where = record["hardware"] or record["device"]
            workers = record["world_sizes"][-1]
            words[f"{where}, {workers} worker{'s' if workers > 1 else ''}"] = None
    return (
        "Top-1 in % on the test set, read once a run: mean ± sample standard deviation over seeds. Epochs are those of "
        "all stages together; minutes are of the whole run, from its first measurement to the verified files, on "
        f"{'; '.join(words)}."
    )


def comparison(groups: Sequence[Group]) -> str:
    """Beside what others have published, as changes from each one's own float network."""
    ours = [group for group in main_of_each(groups) if (group.first["network"], group.first["data"]) == (NETWORK, DATA)]
    ours = [group for group in ours if any(method.top1.get(group.first["bits"]) for method in PUBLISHED)]
    if not ours:
        return ""
    rows = []
    for group in ours:
        change = f"{group.change.mean:+.2f} ({group.first['float_top1']:.2f} → {group.top1.mean:.2f})"
        rows.append((str(group.first["bits"]), change, *(method.change(group.first["bits"]) for method in PUBLISHED)))
    head = (
        "Beside what is published for a ResNet-20 on CIFAR-10, as changes of top-1 in points, since each began from "
        "another float network:"
    )
    return f"{head}\n\n{table(('bits', 'here', *(method.method for method in PUBLISHED)), rows)}"


def commands(groups: Sequence[Group]) -> list[str]:
    """Blocks of the commands of groups, those that need a GPU by themselves."""
    blocks = []
    for needs_gpu in (False, True):
        lines = []
        for group in groups:
            first = group.first
            if ("--use-gpu" in shlex.split(first["command"])) == needs_gpu:
                lines += [f"# {first['network']}, {first['data']}, {first['bits']} bits", first["command"]]
        if lines:
            fence = "```bash\n" + "\n".join(lines) + "\n```"
            blocks.append(f"{NOT_HERE}\n{fence}" if needs_gpu else fence)
    return blocks
