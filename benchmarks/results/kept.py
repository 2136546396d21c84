"""The final weights of a run as one small file: codes at their bits, and what stayed float.

A safetensors file. A quantized weight is its codes, `core.packing.pack_codes` of them row by row, as uint8; all else is
as it is in the network's state. Metadata `inq_ray`: JSON with `format_version`, and in `packed` the shape, num_bits and
n_1 of each quantized weight. What codes mean stands in inq_ray/export/files.py.
"""

import json
import math
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from inq_ray.core.codebook import Codebook
from inq_ray.core.digest import digest_tensors, summary
from inq_ray.core.packing import pack_codes, packed_size, unpack_codes
from inq_ray.export.codes_file import read_codes
from inq_ray.export.model_file import read_model

FORMAT_VERSION = 1
MOST_BYTES = 300_000
_METADATA_KEY = "inq_ray"


def packed(folder: Path) -> bytes:
    """The contents of the file for a run's model.safetensors and codes.safetensors.

    Raises:
        ValueError: these are not whole, what would be restored is not the same bits, or it is too large to be kept.
    """
    model, codes = read_model(folder / "model.safetensors"), read_codes(folder / "codes.safetensors")
    described = {}
    tensors = {name: tensor for name, tensor in model.items() if name not in codes}
    for name, (codebook, each) in codes.items():
        described[name] = {"shape": list(each.shape), "num_bits": codebook.num_bits, "n_1": codebook.n_1}
        tensors[name] = pack_codes(each.reshape(-1), codebook.num_bits)
    metadata = json.dumps({"format_version": FORMAT_VERSION, "packed": described}, sort_keys=True)
    contents = save(tensors, {_METADATA_KEY: metadata})
    if len(contents) > MOST_BYTES:
        raise ValueError(f"{folder}: {len(contents):,} bytes are too many to be kept, at most {MOST_BYTES:,} are")
    return contents


def restore(path: Path) -> dict[str, Tensor]:
    """The network's state (float tensors by name) of a kept file, for `model.load_state_dict`.

    Raises:
        ValueError: the file is not whole, or not of this format; one line.
    """
    try:
        with safe_open(path, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            metadata = json.loads((opened.metadata() or {})[_METADATA_KEY])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{path}: not a whole file of kept weights ({error!r})") from error
    if metadata["format_version"] != FORMAT_VERSION:
        raise ValueError(f"{path}: format_version is {metadata['format_version']!r}, {FORMAT_VERSION} is read")
    for name, line in metadata["packed"].items():
        codebook, count = Codebook(line["num_bits"], line["n_1"]), math.prod(line["shape"])
        if name not in tensors or tensors[name].numel() != packed_size(codebook.num_bits, count):
            raise ValueError(f"{path}: {name!r} has not the bytes of {count} codes of {codebook.num_bits} bits")
        weight = codebook.decode(unpack_codes(tensors[name], codebook.num_bits, count)).reshape(line["shape"])
        if weight.isnan().any():
            raise ValueError(f"{path}: {name!r} has a code that is no level of {codebook}")
        tensors[name] = weight
    return tensors


def digest(state: dict[str, Tensor]) -> str:
    """One sha256 over a network's state, as `verification.digest` of a run's summary.json."""
    return summary(digest_tensors({name: tensor.to(torch.device("cpu")) for name, tensor in state.items()}))
