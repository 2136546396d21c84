"""What is worth it on the machine of a benchmark: --gradient-communication, --num-workers, workers for the input."""

from collections.abc import Sequence
from dataclasses import dataclass

from inq_ray.benchmark.figures import World

# What a change saves at least to be worth it, as a fraction of a step.
WORTH = 0.02
# Least gain of more workers to be worth it, as a fraction of the ideal one.
_WORTH_WORKERS = 0.5
# What bf16 saves at least to be mentioned, as a fraction of a step.
_WORTH_BF16 = 0.05


@dataclass(frozen=True, kw_only=True)
class Advice:
    """A recommended flag, and why."""

    flag: str
    reason: str


def sizes_of(least: int, most: int) -> list[int]:
    """Return the numbers of workers that are measured: from the smallest on, doubled, and the largest."""
    sizes = [least]
    while 2 * sizes[-1] < most:
        sizes.append(2 * sizes[-1])
    return sizes if sizes[-1] == most else [*sizes, most]


def advise(worlds: Sequence[World], batch_size: int) -> list[Advice]:
    """Return what is worth it.

    Args:
        worlds: Figures, by ascending number of workers.
        batch_size: Images per step over all workers.
    """
    advice: list[Advice] = []
    best = worlds[-1].num_workers
    if len(worlds) > 1:
        speeds = {world.num_workers: images_per_second(world, batch_size) for world in worlds}
        advice.append(advise_workers(speeds))
        best = worth_workers(speeds)
    world = next(each for each in worlds if each.num_workers == best)
    if world.num_workers > 1:
        ratios = _ratios(world, "live")
        advice.append(advise_gradients(ratios))
        advice += _advise_bf16(ratios, _ratios(world, "live + bf16"))
    return [*advice, *_advise_input(world, batch_size)]


def _ratios(world: World, gradients: str) -> dict[float, float]:
    """Return the ratio of a step to that with dense gradients, by portion."""
    found = {portion: world.find("step", portion, gradients) for portion in world.portions()}
    return {portion: each.ratio for portion, each in found.items() if each is not None and each.ratio is not None}


def images_per_second(world: World, batch_size: int) -> float:
    """Return the images of all workers per second after the first stage, with the faster of dense and live."""
    portion = next(portion for portion in world.portions() if portion)
    steps = [world.find("step", portion, kind) for kind in (("none",) if world.num_workers == 1 else ("dense", "live"))]
    return batch_size / min(step.median for step in steps if step is not None)


def advise_gradients(ratios: dict[float, float]) -> Advice:
    """Return the value of --gradient-communication that is worth it.

    Args:
        ratios: Time of a step with gradients of live weights only relative to dense, by portion, ascending. Without
            frozen weights both send the same, so the ratio at portion 0 shows the noise.
    """
    flag = "--gradient-communication"
    noise = abs(1 - ratios[0.0])
    most = 1 - max(WORTH, noise)
    stages = [portion for portion in ratios if portion]
    worth = [portion for portion in stages if all(ratios[each] <= most for each in stages if each >= portion)]
    first, last = min(worth, default=None), max(stages)
    limit = f"less than {100 * (1 - most):.0f} %" + (", the noise here" if noise > WORTH else "")
    if first is None:
        return Advice(flag=f"{flag} dense", reason=f"live saves {limit}, of a step at the last portions")
    saved = f"live saves {_percent(ratios[first])} of a step at portion {first:g}"
    saved += f", {_percent(ratios[last])} at {last:g}" if last != first else ""
    if first == stages[0]:
        return Advice(flag=f"{flag} live", reason=saved)
    return Advice(flag=f"{flag} auto", reason=f"{saved}, but {limit}, before: auto measures at each stage")


def _percent(ratio: float) -> str:
    return f"{100 * (1 - ratio):.0f} %"


def _advise_bf16(live: dict[float, float], both: dict[float, float]) -> list[Advice]:
    """Return the library's bf16 if it saves clearly more; inq-ray quantize has no flag for it."""
    noise = abs(1 - live[0.0])
    saved = {portion: min(1.0, live[portion]) - both[portion] for portion in live if portion}
    first = min(saved)
    if saved[first] < max(_WORTH_BF16, noise):
        return []
    reason = f"in your own training loop: saves {100 * saved[first]:.0f} % of a step more at portion {first:g}"
    return [Advice(flag="inq_ray.LiveGradients(optimizer, torch.bfloat16)", reason=reason)]


def worth_workers(speeds: dict[int, float]) -> int:
    """Return the largest number of workers up to which each increase brings at least half of the ideal gain.

    Args:
        speeds: Images per second by number of workers, ascending.
    """
    numbers = list(speeds)
    best = numbers[0]
    for number in numbers[1:]:
        if speeds[number] / speeds[best] - 1 < _WORTH_WORKERS * (number / best - 1):
            break
        best = number
    return best


def advise_workers(speeds: dict[int, float]) -> Advice:
    """Return the number of workers that is worth it, for the same global batch.

    Args:
        speeds: Images per second by number of workers, ascending; at least two.
    """
    best, least = worth_workers(speeds), min(speeds)
    more = [number for number in speeds if number > best]
    parts = [f"{best} train{'s' if best == 1 else ''} {speeds[best]:,.0f} images/s"]
    if best != least:
        parts.append(f"{speeds[best] / speeds[least]:.2f} times as many as {least}")
    if more:
        parts.append(f"{more[0]} only {speeds[more[0]] / speeds[best]:.2f} times as many as {best}")
    return Advice(flag=f"--num-workers {best}", reason=", ".join(parts))


def _advise_input(world: World, batch_size: int) -> list[Advice]:
    """Return workers for the input if it is slower than training."""
    reads = world.find("input")
    if reads is None:
        return []
    speed = images_per_second(world, batch_size)
    if reads.median >= speed:
        return []
    reason = f"the input reads {reads.median:,.0f} images/s, less than the {speed:,.0f} that are trained"
    return [Advice(flag="more --loader-workers and --cpus-per-worker", reason=reason)]
