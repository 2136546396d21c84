"""Difference between the results of two runs: `python benchmarks/compare_runs.py runs/one runs/two`.

Another number of workers sums gradients in another order, and BatchNorm sees other shards of a batch; training turns
this into another network of the same kind, as another seed does.
"""

import json
import sys
from pathlib import Path

from inq_ray.export.codes_file import read_codes
from inq_ray.export.model_file import read_model


def main(arguments: list[str]) -> int:
    """Print the comparison of two folders of finished runs."""
    if len(arguments) != 2:
        sys.stderr.write("python benchmarks/compare_runs.py RUN RUN\n")
        return 2
    folders = [Path(argument) for argument in arguments]
    for folder in folders:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        sizes = ", ".join(map(str, summary["world_sizes"]))
        print(f"{folder}: top-1 {summary['top1']:.2f} %, on {sizes} worker(s), digest {summary['digest'][:16]}")
    one, two = (read_model(folder / "model.safetensors") for folder in folders)
    codes_one, codes_two = (read_codes(folder / "codes.safetensors") for folder in folders)
    quantized = max((float((one[name] - two[name]).abs().max()) for name in codes_one), default=0.0)
    largest = max((float(one[name].abs().max()) for name in codes_one), default=0.0)
    num_codes = sum(codes.numel() for _, codes in codes_one.values())
    num_other = sum(int((one[name] != two[name]).sum()) for name in codes_one)
    others = max((float((one[name] - two[name]).abs().max()) for name in one.keys() - codes_one.keys()), default=0.0)
    assert codes_one.keys() == codes_two.keys(), "two runs of one network at the same bits"
    print(
        f"quantized weights: {num_other:,} of {num_codes:,} differ, by at most {quantized:g}; the largest is "
        f"{largest:g}"
    )
    print(f"the others (biases, normalization) differ by at most {others:.3g}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
