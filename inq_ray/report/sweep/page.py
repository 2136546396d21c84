"""Page of a sweep: best trial, Pareto fronts, effects, and a table of all trials."""

import json
from collections import Counter
from typing import get_args

from inq_ray.files.shown import shown
from inq_ray.report.configuration import configuration
from inq_ray.report.html import Html, element, table
from inq_ray.report.incidents import incident_table
from inq_ray.report.page import figure, key_figures, missing, page, section, side_by_side
from inq_ray.report.quantity import percent, size
from inq_ray.report.sweep.charts import curves_chart, effects_chart, front_chart
from inq_ray.report.sweep.record import SweepRecord
from inq_ray.sweep.space.schedules import as_text, bar
from inq_ray.sweep.space.space import SCHEDULE
from inq_ray.sweep.trials.ranking import best_of, effects, ranked, savings
from inq_ray.sweep.trials.trial import Status, Trial, in_words, short
from inq_ray.training.report.screen import duration


def sweep_page(record: SweepRecord) -> str:
    """Return the page of a sweep."""
    base = record.state.base
    data = shown(base.data.data.rstrip("/").rpartition("/")[2])
    about = f"{shown(base.network.arch)} on {data}, accuracy on {base.data.holdout:,} held-out training images"
    parts = [_results(record), _effects(record), _trials(record)]
    head = element("header", element("h1", record.name), element("p", f"Sweep: {about}", class_="lead"))
    facts = [
        section("Incidents", incident_table(record.incidents)),
        configuration(json.loads(base.to_json())),
    ]
    return page(record.name, [head, key_figures(_key(record)), missing(record.files.problems), *parts, *facts])


def _key(record: SweepRecord) -> list[tuple[str, str, str]]:
    best, trials, saved = best_of(record.trials), record.trials, savings(record.trials)
    counts = Counter(trial.status for trial in trials)
    statuses = ", ".join(f"{counts[status]} {status}" for status in get_args(Status) if counts[status])
    figures = [("trials", f"{len(trials)}", statuses)]
    if best is not None:
        figures.insert(0, ("best top-1", f"{percent(best.top1)} %", f"{best.name}, {best.bits} bits"))
        if best.name in record.num_bytes:
            figures.insert(1, ("its packed file", size(record.num_bytes[best.name]), ""))
        test = record.state.test
        if test is not None and record.state.tested == best.name:
            figures.insert(1, ("on the test set", f"{test.top1:.2f} %", f"{test.num_samples:,} images"))
    total = saved.num_trained + saved.num_reused
    about = f"of {total} stages; {duration(saved.saved_seconds)} saved, {duration(saved.trained_seconds)} trained"
    return [*figures, ("reused", f"{saved.num_reused}", about)]


def _results(record: SweepRecord) -> Html | None:
    done = [trial for trial in record.trials if trial.top1 is not None]
    begun = [trial for trial in record.trials if len(trial.curve) > 1]
    charts = []
    caption = "Top-1 in percent; the line joins trials that no other beats in both."
    if len({trial.bits for trial in done}) > 1:
        charts.append(
            figure(
                "Accuracy and bits.", caption, front_chart("bits", done, lambda trial: trial.bits, "bits per weight")
            )
        )
    sized = [trial for trial in done if trial.name in record.num_bytes]
    if sized:
        packed = front_chart("bytes", sized, lambda trial: record.num_bytes[trial.name] / 1000, "packed file, kB")
        charts.append(figure("Accuracy and size.", caption, packed))
    if begun:
        text = "In percent at the end of each stage. The strong line is the best trial; dashed ones have no result."
        charts.append(figure("Top-1 over the portion.", text, curves_chart(begun)))
    return section("Results", side_by_side(*charts))


def _effects(record: SweepRecord) -> Html | None:
    found = effects(record.trials)
    if not found:
        return None
    caption = Html(
        'Top-1 of the finished trials. <span class="a" aria-hidden="true">●</span> mean, '
        '<span class="a" aria-hidden="true">○</span> best. Other parameters differ too.'
    )
    heads = ("parameter", "value", "trials", "mean, %", "best, %")
    rows = [
        (each.parameter, each.value, f"{each.num_trials}", percent(each.mean), percent(each.best)) for each in found
    ]
    listed = table(heads, rows, texts=("parameter", "value"), label="Effects")
    return section("Effects", side_by_side(figure("By value.", caption, effects_chart(found)), listed))


def _trials(record: SweepRecord) -> Html | None:
    if not record.trials:
        return None
    names = list(dict.fromkeys(name for trial in record.trials for name in trial.point if name != SCHEDULE))
    heads = ["", "trial", "schedule", "portions", *map(short, names), "top-1, %", "bytes", "reused", "status"]
    has_reasons = any(trial.reason for trial in record.trials)
    heads += ["reason"] if has_reasons else []
    rows = [
        _cells(number, trial, names, record)[: len(heads)]
        for number, trial in enumerate(ranked(record.trials), start=1)
    ]
    texts = ("trial", "schedule", "portions", "status")
    return section("Trials", table(heads, rows, texts=texts, prose=("reason",), label="Trials, the best first"))


def _cells(number: int, trial: Trial, names: list[str], record: SweepRecord) -> list[str]:
    reached = f"({percent(trial.ends[-1].top1)} at {trial.ends[-1].portion:g})" if trial.ends else ""
    num_reused, num_bytes = trial.count("reused"), record.num_bytes.get(trial.name)
    return [
        "" if trial.top1 is None else str(number),
        trial.name,
        bar(trial.schedule),
        as_text(trial.schedule),
        *(in_words(trial.point[name]) if name in trial.point else "" for name in names),
        reached if trial.top1 is None else percent(trial.top1),
        "" if num_bytes is None else f"{num_bytes:,}",
        f"{num_reused} of {num_reused + trial.count('trained')}",
        trial.status,
        trial.reason or "",
    ]
