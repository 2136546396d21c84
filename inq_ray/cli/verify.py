"""`inq-ray verify RESULT`: checks the files of a result, and its claimed accuracy on data; prints a line per check.

Exit status 0: everything is correct. 1: something is wrong. 2: a check could not start, or a worker failed.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from inq_ray.cli.quantize import evaluated
from inq_ray.cli.result import claimed, evaluation_words, image_flags, run_with_result, value_of
from inq_ray.cli.status import complain
from inq_ray.cluster.failure import RunFailedError
from inq_ray.data.image_set import SourceInfo
from inq_ray.export.errors import VerificationError
from inq_ray.export.packed.reader import PackedFile
from inq_ray.export.table import rows_of
from inq_ray.files.extra import install_command
from inq_ray.files.shown import counted, one_line
from inq_ray.training.evaluation.accuracy import Accuracy
from inq_ray.training.evaluation.evaluate import evaluate_only
from inq_ray.training.flags.parse import parse
from inq_ray.training.task.build import open_data
from inq_ray.verification import is_onnx, packed_in, verified

_HELP = """\
usage: {program} RESULT [--data DATA [FLAGS]]

Check that every quantized weight is 0 or ±2^k and equals its code, and that nothing in the files has changed. RESULT is
a run's folder, a packed file (NAME.inq.safetensors), or an ONNX file that inq-ray export wrote.

--data DATA also measures the accuracy and compares it with the claim, image by image; other flags are those of
inq-ray evaluate, such as --num-workers 8. An ONNX file is run by ONNX Runtime, in this process.

Exit status: 0 if everything is correct, 1 if something is wrong, 2 if a check could not start or a worker failed."""


def main(arguments: Sequence[str], program: str) -> int:
    """Run the command line; return the exit status.

    Args:
        arguments: Words of the command line.
        program: Program name for messages.
    """
    return run_with_result(arguments, program, _HELP, lambda path, words: _execute(path, words, program))


def _execute(path: Path, words: list[str], program: str) -> int:
    if words and value_of("--data", words) is None:
        raise ValueError(f"{words[0]} needs --data DATA, on which the accuracy is measured")
    try:
        packed = verified(path)
    except VerificationError as error:
        return _failed(str(error))
    for check, what in _checks(packed, path):
        print(f"right     {check:9} {what}")
    if words:
        try:
            print(f"right     accuracy  {_accuracy(packed, path, words, program)}")
        except VerificationError as error:
            return _failed(f"accuracy: {error.reason}")
        except RunFailedError as error:
            complain(program, f"the accuracy could not be measured: {error}", 1000)
            return 2
    return 0


def _failed(reason: str) -> int:
    print(f"WRONG     {one_line(reason)}")
    return 1


def _checks(packed: PackedFile, path: Path) -> list[tuple[str, str]]:
    """Return the name and the outcome of each check."""
    size = packed_in(path).stat().st_size
    if is_onnx(path):
        matching = "its SHA-256 matches, and the graph computes each weight from its codes"
        of_digest = "of the tensors of the packed file that was exported; compare it with that file's"
    else:
        matching = "the SHA-256 digests of index, codes and other tensors match"
        of_digest = "of the tensors; a run prints another one, which includes masks and codes"
    all_rows = rows_of(packed)
    rows = [row for row in all_rows if row.bits is not None]
    weights, zeros = sum(row.num_values for row in rows), sum(row.num_zero for row in rows)
    all_values = sum(row.num_values for row in all_rows if packed.state[row.name].is_floating_point())
    bits = " and ".join(str(each) for each in sorted({row.bits for row in rows if row.bits}))
    levels = max((row.num_levels for row in rows), default=0)
    text = (
        f"{weights:,} in {counted(len(rows), 'tensor')} are 0 or ±2^k within their codebooks, {bits or 'no'} bits "
        f"({100 * zeros / max(1, weights):.1f} % zeros, at most {levels} levels per tensor)"
    )
    return [
        ("file", f"{size:,} bytes; {matching}"),
        ("weights", text),
        ("share", f"{100 * weights / max(1, all_values):.1f} % of {all_values:,} float values are quantized"),
        ("digest", f"{packed.digest} {of_digest}"),
    ]


def _accuracy(packed: PackedFile, path: Path, words: list[str], program: str) -> str:
    """Measure the accuracy and compare it with the claim.

    Raises:
        VerificationError: The claim is wrong, or was measured on other data.
        RunFailedError: A worker failed.
    """
    try:
        right, count, fingerprint, measured_on = claimed(packed)
    except ValueError as error:
        raise VerificationError(None, str(error)) from None
    if is_onnx(path):
        accuracy, info = _evaluated_onnx(packed, path, words, program)
    else:
        accuracy, info = evaluated(evaluation_words(path, words), program)
    if info.fingerprint != fingerprint:
        raise VerificationError(None, "the claim was measured on other data: the fingerprints differ")
    if (accuracy.num_top1, accuracy.num_samples) != (right, count):
        raise VerificationError(
            None,
            f"{accuracy.num_top1:,} of {accuracy.num_samples:,} images, the claim is {right:,} of {count:,} "
            f"({measured_on}); another kind of processor may differ by an image",
        )
    return f"{right:,} of {count:,} images ({accuracy.top1:.2f} %), as claimed"


def _evaluated_onnx(packed: PackedFile, path: Path, words: list[str], program: str) -> tuple[Accuracy, SourceInfo]:
    """Return the accuracy of an ONNX file, and facts about the data.

    Raises:
        ValueError: ONNX Runtime is not installed or cannot run the file, or a flag or the data are invalid.
    """
    try:
        from inq_ray.export.onnx.session import OnnxNetwork
    except ModuleNotFoundError as error:
        command = install_command("onnx", "onnxruntime")
        raise ValueError(f"--data runs an ONNX file by {error.name}, which is not installed: {command}") from error
    config = parse([*image_flags(packed, words), *words, "--evaluate"], program).run
    info = open_data(config).info
    return evaluate_only(config, device=torch.device("cpu"), model=OnnxNetwork(path)), info
