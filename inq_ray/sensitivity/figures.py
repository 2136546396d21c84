"""sensitivity.json: the measured figures, as JSON.

    format_version   1
    arch, data       network and data, as typed
    weights          file or name of the trained weights
    images           {"count", "what"}: number of images, and which they are, in words
    method           "nearest": weights rounded to nearest; "post-training": as by --post-training
    codebook, levels, codebook_per    as in a run's configuration
    bits             numbers of bits that were tried, ascending
    rest_bytes       bytes of the packed file in addition to the codes, about
    float            score of the float network
    layers           list of {"name", "shape", "num_weights", "by_bits"}, in the order of the network; by_bits has
                     {"bytes", ...score} for each number of bits, as a text: bytes of the layer's codes in the packed
                     file, and the score with this layer quantized alone
    ranking          names of layers, the most sensitive first
    cumulative       for each number of bits, as a text, a list of {"name", ...score} in the order of `ranking`: the
                     score with this layer and all less sensitive ones quantized; the first has all layers quantized
    uniform          for each number of bits, as a text, {"bytes", ...score}: the same bits in all layers
    proposal         null, or {"target", "weight_bits", "layer_bits", "bits", "mean_bits", "bytes", ...score}: `target`
                     is {"bytes"} or {"top1"}, `layer_bits` a list of words of --layer-bits, `bits` has bits by layer's
                     name

A score is {"divergence", "loss", "top1"}: mean Kullback-Leibler divergence from the float network's outputs in nats,
mean cross-entropy, and top-1 in percent. All scores are before re-training.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from inq_ray.files.shown import shown
from inq_ray.files.whole import write_text
from inq_ray.sensitivity.measure import Measured
from inq_ray.sensitivity.prepare import Prepared
from inq_ray.sensitivity.proposal import Proposal
from inq_ray.training.config import RunConfig

FORMAT_VERSION = 1


def figures_of(
    config: RunConfig, prepared: Prepared, measured: Measured, proposal: Proposal | None, target: dict[str, float]
) -> dict[str, Any]:
    """Return the contents of sensitivity.json.

    Args:
        config: Configuration of the measurement.
        prepared: Network and images.
        measured: The measurement.
        proposal: The proposal; None = there is none.
        target: What was wanted: {"bytes": ...} or {"top1": ...}.
    """
    quantization, probe = config.quantization, prepared.probe
    return {
        "format_version": FORMAT_VERSION,
        "arch": config.network.arch,
        "data": config.data.data,
        "weights": config.network.weights,
        "images": {"count": prepared.num_images, "what": prepared.images},
        "method": "nearest" if probe.rounding.calibration is None else "post-training",
        "codebook": quantization.codebook,
        "levels": quantization.levels,
        "codebook_per": quantization.codebook_per,
        "bits": measured.bits,
        "rest_bytes": measured.rest_bytes,
        "float": dataclasses.asdict(probe.float_score),
        "layers": [_layer(name, prepared, measured) for name in measured.scores],
        "ranking": list(measured.ranking),
        "cumulative": {
            str(num_bits): [{"name": name, **dataclasses.asdict(score)} for name, score in scores.items()]
            for num_bits, scores in measured.cumulative.items()
        },
        "uniform": {str(num_bits): _sized(*measured.uniform(num_bits)) for num_bits in measured.bits},
        "proposal": None if proposal is None else _proposal(proposal, target),
    }


def write_figures(path: Path, figures: dict[str, Any], flag: str) -> None:
    """Write the file.

    Raises:
        ValueError: It cannot be written; names the flag.
    """
    try:
        write_text(path, json.dumps(figures, indent=1, allow_nan=False) + "\n")
    except OSError as error:
        raise ValueError(f"{flag} {shown(path)}: cannot be written ({error.strerror or error})") from error


def _layer(name: str, prepared: Prepared, measured: Measured) -> dict[str, Any]:
    param = prepared.probe.params[name]
    by_bits = {
        str(num_bits): _sized(measured.num_bytes[name][num_bits], score)
        for num_bits, score in measured.scores[name].items()
    }
    return {"name": name, "shape": list(param.shape), "num_weights": param.numel(), "by_bits": by_bits}


def _proposal(proposal: Proposal, target: dict[str, float]) -> dict[str, Any]:
    weight_bits, layer_bits = proposal.layer_bits
    words = {
        "weight_bits": weight_bits,
        "layer_bits": list(layer_bits),
        "bits": proposal.bits,
        "mean_bits": proposal.mean_bits,
    }
    return {"target": target, **words, **_sized(proposal.num_bytes, proposal.score)}


def _sized(num_bytes: int, score: Any) -> dict[str, Any]:
    return {"bytes": num_bytes, **dataclasses.asdict(score)}
