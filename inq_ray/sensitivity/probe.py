"""A network that is quantized in part for a measurement, and restored after it."""

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inq_ray.core.channels import Per
from inq_ray.core.codebook import Levels, Rule
from inq_ray.core.stage import round_all
from inq_ray.core.state import TensorState
from inq_ray.export.packed.coding import compress_codes
from inq_ray.export.packed.writer import write
from inq_ray.export.result import Result
from inq_ray.post_training import quantize_params_

States = Mapping[str, TensorState]


@dataclass(frozen=True, kw_only=True)
class Score:
    """How a network does on the images of a measurement.

    Attributes:
        divergence: Mean Kullback-Leibler divergence of its outputs from those of the float network, in nats; 0 = equal.
        loss: Mean cross-entropy.
        top1: Percentage of images whose label has the largest output.
    """

    divergence: float
    loss: float
    top1: float


def score_of(logits: Tensor, labels: Tensor, float_logits: Tensor) -> Score:
    """Return the score of outputs.

    Args:
        logits: float [n, classes], outputs of the network.
        labels: int64 [n].
        float_logits: float [n, classes], outputs of the float network.

    Raises:
        ValueError: An output is not finite.
    """
    if not bool(torch.isfinite(logits).all()):
        raise ValueError("an output of the network is not finite, so nothing can be measured: check weights and images")
    logs, float_logs = (each.double().log_softmax(1) for each in (logits, float_logits))
    divergence = (float_logs.exp() * (float_logs - logs)).sum(1).mean()
    return Score(
        divergence=max(0.0, float(divergence)),
        loss=float(nn.functional.nll_loss(logs, labels)),
        top1=100 * int((logits.argmax(1) == labels).sum()) / len(labels),
    )


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """How weights are quantized for a measurement.

    Attributes:
        levels: Levels of a weight.
        codebook_per: Scope of the largest power of two.
        rule: Rule for the largest power of two, without calibration.
        calibration: Inputs of the network for post-training quantization; None = weights are rounded to nearest.
        keep_zeros: Whether zeros stay 0 in post-training quantization.
    """

    levels: Levels = "paper"
    codebook_per: Per = "tensor"
    rule: Rule = "mse"
    calibration: Sequence[Tensor] | None = None
    keep_zeros: bool = False


Inputs = Callable[[], Iterable[Tensor]]


class Probe:
    """A float network and images; in :meth:`quantized` some of its layers are quantized.

    Args:
        model: The network, in evaluation mode.
        params: Its parameters that may be quantized, by name.
        inputs: Returns the batches of inputs, the same each time.
        labels: int64 [n], labels of all batches.
        rounding: How weights are quantized.

    Attributes:
        params: Parameters that may be quantized, by name.
        float_score: Score of the float network.
    """

    def __init__(
        self,
        model: nn.Module,
        params: Mapping[str, nn.Parameter],
        inputs: Inputs,
        labels: Tensor,
        rounding: Rounding,
    ) -> None:
        self.params, self.rounding = dict(params), rounding
        self._model, self._inputs, self._labels = model, inputs, labels
        self._float_state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        self._float_logits = self._logits()
        self.float_score = score_of(self._float_logits, labels, self._float_logits)

    @contextlib.contextmanager
    def quantized(self, bits: Mapping[str, int]) -> Iterator[States]:
        """Quantize layers during a block, and yield their states.

        Args:
            bits: Bits by name of the parameter.
        """
        rounding, params = self.rounding, {name: self.params[name] for name in bits}
        states: States = {
            name: TensorState.live(param, bits[name], rounding.levels, rounding.codebook_per)
            for name, param in params.items()
        }
        try:
            if rounding.calibration is None:
                for name, param in params.items():
                    round_all(param, states[name], rounding.rule)
            else:
                done = quantize_params_(
                    self._model, rounding.calibration, params, states, keep_zeros=rounding.keep_zeros
                )
                states = done.state
            yield states
        finally:
            self._model.load_state_dict(self._float_state)

    def cumulative(self, names: Sequence[str], num_bits: int) -> Iterator[Score]:
        """Yield the score with the first layer quantized, with the first two, and so on.

        Args:
            names: Names of the layers' parameters.
            num_bits: Bits of each.
        """
        if self.rounding.calibration is not None:  # layers are rounded in turn, each with the errors of earlier ones
            for count in range(1, len(names) + 1):
                with self.quantized(dict.fromkeys(names[:count], num_bits)):
                    yield self.score()
            return
        with contextlib.ExitStack() as stack:
            for name in names:
                stack.enter_context(self.quantized({name: num_bits}))
                yield self.score()

    def score(self) -> Score:
        """Return the score of the network as it is now."""
        return score_of(self._logits(), self._labels, self._float_logits)

    def file_size(self, states: States, facts: Mapping[str, Any]) -> int:
        """Return the bytes of the packed file of the network as it is now.

        Args:
            states: States of its quantized layers.
            facts: Facts of the file.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network"
            write(path, Result(self._model.state_dict(), states, facts))
            return path.stat().st_size

    def _logits(self) -> Tensor:
        with torch.inference_mode():
            return torch.cat([self._model(batch).float().cpu() for batch in self._inputs()])


def num_code_bytes(state: TensorState) -> int:
    """Return the bytes of a quantized tensor's codes in the packed file."""
    return len(compress_codes(state.codes, state.codebook.num_bits)[1])
