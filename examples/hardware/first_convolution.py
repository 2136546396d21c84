"""The first convolution of the digits network as Verilog, compared with int8 and int4.

For each number format, da4ml makes one unrolled module for a 3x3 patch: 9 inputs of 8 bits, 16 outputs, only shifts and
additions. iverilog simulates it on 200 patches, which must equal numpy, and yosys counts its generic cells.

    python first_convolution.py [FOLDER]
"""

import subprocess
from pathlib import Path

import numpy as np
import torch
from da4ml.codegen import VerilogModel
from da4ml.trace import FixedVariableArrayInput, comb_trace
from digits import FRACTION, accuracy, images, quantized, run_in_folder, trained

from inq_ray.models.digits_cnn import DigitsCNN

NAME = "features.0.weight"
NUM_PATCHES = 200

# Files of da4ml: the module, and the parts of which it consists.
SOURCES = ("src/conv.v", "src/static/shift_adder.v", "src/static/negative.v")

TESTBENCH = """
module testbench;
    reg [{inputs}:0] patches [0:{last}];
    wire [{outputs}:0] sums;
    integer i;
    conv_wrapper conv (.model_inp(patches[i]), .model_out(sums));
    initial begin
        $readmemh("patches.mem", patches);
        for (i = 0; i <= {last}; i = i + 1) begin #1 $display("%b", sums); end
    end
endmodule
"""


def main(folder: Path) -> None:
    """Print a table."""
    network = trained(DigitsCNN())
    weight = network.get_parameter(NAME).detach()
    print(f"float network: top-1 {accuracy(network):.2f} %")
    print("format                  values  zeros  adders' cost  yosys cells  simulated  top-1 (whole network)")
    for bits in (8, 4):
        scale = float(weight.abs().max()) / (2 ** (bits - 1) - 1)
        _report(folder, f"int{bits}", (weight / scale).round(), "")
    for bits in (5, 4, 3, 2):
        small, n_2 = quantized(network, bits)
        kernel = small.get_parameter(NAME).detach() * 2.0 ** -n_2[NAME]
        _report(folder, f"powers of two, {bits} bits", kernel, f"{accuracy(small):.2f} %")


def _report(folder: Path, name: str, kernel: torch.Tensor, note: str) -> None:
    matrix = kernel.reshape(16, 9).T.numpy()
    assert (matrix == matrix.round()).all()
    values, zeros = len(np.unique(matrix)), 100 * float((matrix == 0).mean())
    path = folder / name.replace(" ", "_").replace(",", "")
    cost = _write(path, matrix)
    patches = _patches()
    assert np.array_equal(_simulate(path, patches), patches @ matrix.astype(np.int64)), name
    line = f"{name:22}  {values:6}  {zeros:3.0f} %  {cost:12.0f}  {_cells(path):11,}  = numpy    {note}"
    print(line.rstrip(), flush=True)


def _write(path: Path, matrix: np.ndarray) -> float:
    """Write the module for inputs @ matrix; return da4ml's estimate of its cost."""
    inputs = FixedVariableArrayInput(9).quantize(np.ones(9, int), np.full(9, 7), np.zeros(9, int))
    logic = comb_trace(inputs, inputs @ matrix.astype(np.float32))
    VerilogModel(logic, "conv", path).write()
    return float(logic.cost)


def _patches() -> np.ndarray:
    """Return int64 [200, 9]: patches of images, and random ones with the largest values."""
    unfolded = torch.nn.functional.unfold(images()[0], 3, padding=1).transpose(1, 2).reshape(-1, 9)
    random = np.random.default_rng(0)
    seen = (unfolded.numpy() * 2**FRACTION)[random.choice(len(unfolded), NUM_PATCHES // 2)]
    return np.concatenate([seen, random.integers(-128, 128, (NUM_PATCHES // 2, 9))]).astype(np.int64)


def _simulate(path: Path, patches: np.ndarray) -> np.ndarray:
    """Return int64 [200, 16] as iverilog computes it."""
    lines = ["".join(f"{value & 255:02x}" for value in patch[::-1]) for patch in patches.tolist()]
    (path / "patches.mem").write_text("\n".join(lines))
    wrapper = (path / "src/conv_wrapper.v").read_text()
    num_outputs = int(wrapper.split("output [")[1].split(":")[0]) + 1
    bench = TESTBENCH.format(inputs=71, outputs=num_outputs - 1, last=len(patches) - 1)
    (path / "testbench.v").write_text(bench)
    _run(path, "iverilog", "-g2012", "-o", "testbench.vvp", "testbench.v", "src/conv_wrapper.v", *SOURCES)
    width = num_outputs // 16
    found = []
    for line in _run(path, "vvp", "testbench.vvp").split():
        fields = [int(line[len(line) - width * (k + 1) : len(line) - width * k], 2) for k in range(16)]
        found.append([value - (1 << width) if value >> (width - 1) else value for value in fields])
    return np.array(found, np.int64)


def _cells(path: Path) -> int:
    """Return the number of cells after yosys' generic synthesis."""
    out = _run(path, "yosys", "-p", f"read_verilog {' '.join(SOURCES)}; synth -flatten -top conv; stat")
    return int(out.split("Number of cells:")[-1].split()[0])


def _run(path: Path, *command: str) -> str:
    return subprocess.run(command, cwd=path, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    run_in_folder(main)
