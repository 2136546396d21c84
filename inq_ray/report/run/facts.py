"""Sections of facts about a run: environment, and digests with files."""

from inq_ray.report.html import Html, element, pairs, table
from inq_ray.report.page import section
from inq_ray.report.quantity import number, words
from inq_ray.report.run.record import RunRecord
from inq_ray.training.loop.time_spent import Spent
from inq_ray.training.report.screen import duration


def environment(record: RunRecord) -> Html | None:
    """Return machine, versions, images and time of a finished run."""
    if not record.summary:
        return None
    versions, seconds = record.fact("versions"), number(record.fact("seconds"))
    rows = [("device", words(record.fact("device")))]
    if isinstance(versions, dict):
        rows.append(("versions", words(versions)))
    rows.append(("workers", words(record.fact("world_sizes"))))
    if seconds is not None and 0 <= seconds < 1e9:
        rows.append(("time", f"{duration(seconds)} of training, validation and saving, without what was lost"))
    if (spent := _spent(record)) is not None:
        rows.append(("speed", spent))
    images = record.fact("images")
    for line in images if isinstance(images, list) else []:
        name, _, text = str(line).partition(": ")
        rows.append((name, text))
    for name, what in (("num_bad_images", "unreadable images left out"), ("num_skipped_steps", "steps skipped")):
        if number(record.fact(name)):
            rows.append((what, words(record.fact(name))))
    return section("Environment", pairs(rows))


def _spent(record: RunRecord) -> str | None:
    found = [number(record.fact("spent", name)) for name in ("seconds", "data_seconds", "network_seconds")]
    seconds, data, network = found
    if not seconds or data is None or network is None:
        return None
    return str(Spent(seconds=seconds, data_seconds=data, network_seconds=network))


def digests(record: RunRecord) -> Html | None:
    """Return digests of the run and its files, and the files' sizes."""
    facts = [
        ("run", "digest of weights, masks and codes", record.fact("digest")),
        ("tensors", "digest of the network's tensors, also in the packed file", record.fact("verification", "digest")),
        ("model.safetensors", "SHA-256 of the file", record.fact("verification", "model_sha256")),
    ]
    if record.packed is not None:
        fingerprint = record.packed.facts.get("accuracy")
        if isinstance(fingerprint, dict) and fingerprint.get("data_fingerprint"):
            facts.append(("data", "fingerprint of the data", fingerprint["data_fingerprint"]))
    rows = [(name, what, element("code", str(value))) for name, what, value in facts if value]
    listed = table(("of", "what", "digest"), rows, texts=("of", "what", "digest"), label="Digests") if rows else None
    sizes = table(
        ("file", "bytes"),
        [(name, f"{num_bytes:,}") for name, num_bytes in sorted(record.sizes.items())],
        texts=("file",),
        label="Files",
    )
    return section("Digests and files", listed, sizes if record.sizes else None)
