"""The final weights of a run as one small safetensors file: codes packed at their bits, and what stayed float.

A quantized weight is `core.packing.pack_codes` of its codes, row by row. Metadata `inq_ray`: JSON with
`format_version`, and in `packed` shape, num_bits and n_1 of each quantized weight, and levels if they are not the
paper's.
"""

import json
import math
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from inq_ray.core.channels import codebook_of
from inq_ray.core.digest import digest_tensors, summary
from inq_ray.core.packing import pack_codes, unpack_codes
from inq_ray.export.codes_file import read_codes
from inq_ray.export.model_file import read_model

MOST_BYTES = 300_000


def packed(folder: Path) -> bytes:
    """Return the contents of the file for a run's model.safetensors and codes.safetensors.

    Raises:
        ValueError: The run's files are damaged, or the result is too large for the repository.
    """
    tensors, described = read_model(folder / "model.safetensors"), {}
    for name, (codebook, codes) in read_codes(folder / "codes.safetensors").items():
        described[name] = {"shape": list(codes.shape), "num_bits": codebook.num_bits, "n_1": codebook.n_1}
        if codebook.levels != "paper":
            described[name]["levels"] = codebook.levels
        tensors[name] = pack_codes(codes.reshape(-1), codebook.num_bits)
    contents = save(tensors, {"inq_ray": json.dumps({"format_version": 1, "packed": described}, sort_keys=True)})
    if len(contents) > MOST_BYTES:
        raise ValueError(f"{folder}: {len(contents):,} bytes are too many to keep, at most {MOST_BYTES:,} are allowed")
    return contents


def restore(path: Path) -> dict[str, Tensor]:
    """Return the network's state of a kept file, for `model.load_state_dict`.

    Raises:
        ValueError: The file is damaged.
    """
    tensors = read_model(path)
    with safe_open(path, framework="pt") as opened:
        described = json.loads(opened.metadata()["inq_ray"])["packed"]
    for name, line in described.items():
        codes = unpack_codes(tensors[name], line["num_bits"], math.prod(line["shape"])).reshape(line["shape"])
        codebook = codebook_of(line["num_bits"], line["n_1"], line.get("levels", "paper"))
        tensors[name] = codebook.decode(codes)
    return tensors


def digest(state: dict[str, Tensor]) -> str:
    """Return the sha256 over a network's state, as `verification.digest` of a run's summary.json."""
    return summary(digest_tensors(state))
