"""Figures as a benchmark would measure them, made from a formula."""

from inq_ray.benchmark.figures import Figure, World
from inq_ray.benchmark.step import EXCHANGES, NONE
from inq_ray.benchmark.subject import PORTIONS


def made_world(num_workers: int, *, compute: float = 1.0, exchange: float = 0.5, noise: float = 0.0) -> World:
    """A world in which a step computes and then exchanges, in seconds; noise is added to steps with "live"."""
    figures: list[Figure] = []
    sent = {"dense": 1.0, "live": 1.0, "bf16": 0.5, "live + bf16": 0.5}
    for portion in PORTIONS:
        figures.append(Figure.of("optimizer", [0.02, 0.02], portion=portion, reference=[0.01, 0.02]))
        if num_workers == 1:
            figures.append(Figure.of("step", [compute], portion=portion, gradients=NONE))
            continue
        for kind in EXCHANGES:
            share = sent[kind] * (1 - portion if "live" in kind else 1)
            seconds = compute + exchange * share + (noise if "live" in kind else 0.0)
            figures.append(
                Figure.of("step", [seconds], portion=portion, gradients=kind, reference=[compute + exchange])
            )
            figures.append(Figure.of("step_bytes", [1e9 * share], portion=portion, gradients=kind))
        figures.append(Figure.of("step", [compute], portion=portion, gradients=NONE, reference=[compute + exchange]))
    for portion in PORTIONS[1:]:
        figures += [
            Figure.of("stage", [123.4], portion=portion),
            Figure.of("message", [9.0], portion=portion),
            Figure.of("message_bytes", [1e9], portion=portion),
        ]
    if num_workers > 1:
        figures += [Figure.of("link", [117.5e6, 118e6]), Figure.of("link_latency", [2e-4])]
    figures += [
        Figure.of("checkpoint_stall", [0.25]),
        Figure.of("checkpoint_write", [2.5]),
        Figure.of("checkpoint_bytes", [52e6]),
    ]
    lines = tuple(f"rank {rank}: node 10.0.0.{rank}" for rank in range(num_workers))
    return World(num_workers=num_workers, workers=lines, figures=tuple(figures))
