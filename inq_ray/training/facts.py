"""Facts for recipients of a result: network, preprocessing and measured accuracy; see docs/format.md."""

from pathlib import Path
from typing import Any

from inq_ray import __version__
from inq_ray.training.config import RunConfig
from inq_ray.training.task.build import Task, preprocessing_of


def result_facts(config: RunConfig, task: Task, figures: dict[str, Any], digest: str) -> dict[str, Any]:
    """Return the facts for a packed file, as JSON values.

    Args:
        config: Configuration of the run.
        task: Network and data of the run.
        figures: From :func:`inq_ray.training.summary.figures`; top-1 and top-5 in percent.
        digest: Digest of the network.
    """
    info = task.info
    seen = preprocessing_of(config.data, config.network)
    images: dict[str, Any] = {
        "channels": info.channels,
        "height": info.height,
        "width": info.width,
        "scale": "0 to 1",
        "mean": list(info.mean),
        "std": list(info.std),
    }
    if info.is_streamed:
        images |= {"resize": seen.resize_size, "crop": seen.crop_size, "interpolation": seen.interpolation}
    return {
        "network": {
            "arch": config.network.arch,
            "num_classes": info.num_classes,
            "in_channels": info.channels,
            "image_size": info.height if info.is_streamed else None,
        },
        "class_names": list(info.class_names),
        "images": images,
        "accuracy": {
            **{name: figures[name] for name in ("top1", "top5", "float_top1", "float_top5", "measured_on")},
            "num_images": len(task.validation_indices),
            "data": Path(info.name).name,
            "data_fingerprint": info.fingerprint,
        },
        "run_digest": digest,
        "program": f"inq_ray {__version__}",
    }
