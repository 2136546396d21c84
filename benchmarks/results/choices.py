"""The part of the page about what was chosen on held-out images, and what did not help."""

from collections.abc import Sequence
from typing import Any

from benchmarks.results.groups import Group, Spread, differences, groups_of
from benchmarks.results.record import Record
from benchmarks.results.tables import prose, table

# What trials side by side have in common: the float network that they begin with, and how long they are trained.
_IN_COMMON = (
    "network.weights",
    "training.epochs",
    "training.epochs_each",
    "training.epochs_total",
    "training.limit_batches",
)
_HOW = (
    "Made on 5,000 images held out of training, never on the test set. The float network was trained without "
    "them too (`--plain --holdout 5000 --epochs 36 --batch-size 512 --lr 0.4 --weight-decay 5e-4 --nesterov "
    "--warmup-epochs 2 --lr-schedule cosine`), and has 90.36 % of them, at a loss of 0.3006. Those on a GPU had "
    "12 epochs in all; those on CPUs what their headings say, else an epoch of 50 batches a stage. A script "
    "called `inq_ray.training.run.run` with the configurations that the files in docs/results/choices/ have, "
    "without Ray; runs with the same epochs in the same first stages may go on from one checkpoint of them. Pairs "
    "have the same seed, and so the same images; with one seed a difference below half a point may be chance, "
    "and the loss says more. It also falls where a network becomes less sure of itself and errs as often; so some "
    "notes give the calibrated loss, that of the logits divided by the number which makes it least (0.2814 for the "
    "float network). In headings that network is `h45.safetensors`, or `model.safetensors` as its run left it; "
    "`h45eq3.safetensors` is the same with its channels scaled. The strategy `error` froze first the weights nearest "
    "to their powers; it is out again (commit d6bfe34 has it)."
)
_LONGER = (
    "Those called `long` begin with another float network: the first one, its convolutions' weights doubled "
    "(`h45x2.safetensors`), was trained on for 30 epochs (`--plain --holdout 5000 --epochs 30 --batch-size 128 --lr "
    "0.1 --weight-decay 1e-4 --lr-schedule cosine`). It has 91.38 % of the held-out images at a loss of 0.319 "
    "(calibrated: 0.2603), 97.7 % of the training images, and filters of a squared norm of 3.65 in the median, where "
    "the given network has 3.32 and the first one 0.82. With it mixed images gained at 5, 3 and 2 bits, which was not "
    "so with the first one; and labels beside them lost at 3 bits, but for the calibrated loss not at 5. That is one "
    "seed of each. Rates and weight decay with six digits were given relative to that norm."
)
_SMALLER = (
    "`othernets:resnet8` is a network that none of this was chosen for: `ResNetCifar(8)`, 75,290 parameters, "
    "trained by the job itself (`--plain --holdout 5000 --epochs 40 --batch-size 128 --lr 0.1 --weight-decay 5e-4 "
    "--nesterov --lr-schedule cosine`) to 85.46 % of the held-out images at a training loss of 0.35: it knows few "
    "of its training images by heart. The recipe `lossless` at 3 bits, with 16 epochs and the rate of the family, "
    "ended 1.1 points below it, with mixed images and no labels 1.4. So that recipe has no mixed images: what "
    "they gain depends on the network. One seed of each."
)
# The code is no longer there to make files of.
_TAKEN_OUT = (
    "What was built, tried and taken out again (commit d006b9f has it) scaled output channels that BatchNorm follows, "
    "before the first stage, so that one power is right for all channels of a tensor. Right after the first stage's "
    "partition that gained much, at the end nothing: a small network of depthwise convolutions on the demo's digits "
    "at 4 bits, two seeds, had 97.0 and 97.4 % there instead of 49.6 and 79.4, and 98.4 and 99.0 % at the end "
    "instead of 97.6 and 99.2; at 3 bits 62.2 and 55.8 % instead of 23.8 and 14.0, and 96.6 and 98.4 % instead of "
    "97.4 and 98.0. With squared errors that count by the weights' magnitudes, so that large ones saturate less, "
    "cifar_resnet20 at 3 bits began its first stage at 75.6 % instead of 22.4 and ended at 89.96 instead of 90.60. "
    "Rates relative to the squared norm of the network's filters (commit af849b8) made training the same, bit for bit, "
    "for a network whose weights are twice as large; but the rate that was best for the first float network, made "
    "relative, was no better for the one trained for longer than a quarter of it (b3-long-lr09-s0): how far a network "
    "is from the end of its training counts too."
)


def choices(records: Sequence[Record]) -> str:
    """What was tried on held-out images, by width."""
    if not records:
        return ""
    of_name = {record["name"]: record for record in records}
    parts = [prose(_HOW), prose(_LONGER), prose(_SMALLER), prose(_TAKEN_OUT)]
    groups = groups_of(records)
    for key in dict.fromkeys(_trial(group) for group in groups):
        alike = [group for group in groups if _trial(group) == key]
        heads = ("what", "seeds", "held out", "range", "in pairs", "against", "note")
        rows = [_choice(group, alike, of_name) for group in sorted(alike, key=lambda group: -group.top1.mean)]
        first = alike[0].first
        others = differences(alike[0], [group for group in groups if group.key == alike[0].key], _IN_COMMON)
        title = f"{first['network']}, {first['data']}, {first['bits']} bits{others and f' ({others})'}"
        parts.append(f"### {title}\n\n{table(heads, rows)}")
    return "\n\n".join(parts)


def _trial(group: Group) -> tuple[Any, ...]:
    """What trials must share to be set side by side."""
    return (*group.key, *(group.fields[name] for name in _IN_COMMON))


def _choice(group: Group, alike: Sequence[Group], of_name: dict[str, Record]) -> tuple[str, ...]:
    pairs: list[float] = []
    names: dict[str, None] = {}
    for record in group.records:
        other_name = record.get("against")
        if other_name is None:
            continue
        other = of_name.get(other_name)
        if other is None or other["seed"] != record["seed"]:
            raise ValueError(f"{record['name']}: {other_name} is no choice with the same seed to make a pair with")
        pairs.append(record["top1"] - other["top1"])
        names[other_name] = None
    notes = dict.fromkeys(record["note"] for record in group.records if record["note"])
    return (
        differences(group, alike) or "as it is",
        group.seeds,
        group.top1.text(),
        group.top1.ends(),
        Spread(tuple(pairs)).text("+.2f") if pairs else "",
        ", ".join(names),
        "; ".join(notes),
    )
