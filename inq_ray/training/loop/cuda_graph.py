"""A training step as one CUDA graph: a small network's step on a GPU is mostly kernel launches.

The graph has the same kernels with the same addresses, so results have the same bits. It is captured after the first
steps of a phase, when momentum exists and the set of parameters with gradients does not change any more.
"""

from collections.abc import Callable, Hashable

import torch
from torch import Tensor, nn

from inq_ray.core.optim.sgd import SGD
from inq_ray.training.config import TrainingConfig
from inq_ray.training.loop.ema import Ema

# As in torch's examples: libraries initialize at their first calls, which must not be captured.
_WARM_UPS = 3

# A function of tensors that returns tensors.
TensorFunction = Callable[..., tuple[Tensor, ...]]


class CudaGraph:
    """Runs a function of tensors on one GPU by replaying its recorded kernels.

    The first calls run the function normally. Then it is recorded, which executes nothing, and replayed at each call.
    The graph reads and writes the tensors that the function used while it was recorded, and has its numbers as
    constants.

    Args:
        model: Network whose parameters get gradients.
        state: Returns what has to stay the same for the recorded kernels to be right, such as :func:`state_of_step`.
    """

    def __init__(self, model: nn.Module, state: Callable[[], Hashable]) -> None:
        self._params = list(model.parameters())
        self._state = state
        self._stream: torch.cuda.Stream | None = None
        self._shapes: list[torch.Size] = []
        self._num_calls = 0
        self._recorded: Hashable = None
        self._replay: Callable[[], None] | None = None
        self._inputs: tuple[Tensor, ...] = ()
        self._outputs: tuple[Tensor, ...] = ()
        self._grads: list[tuple[nn.Parameter, Tensor]] = []

    def run(self, function: TensorFunction, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Call the function, by replaying the graph if there is one; gradients are those of this call alone.

        Args:
            function: Includes a forward and a backward pass, is always the same one, and reads nothing back from the
                GPU. When it runs its backward pass, parameters have no gradients.
            inputs: Tensors on the GPU. If shapes differ from those of the graph (an image of the batch is left out),
                the function is called normally.

        Returns:
            The function's results.
        """
        shapes = [value.shape for value in inputs]
        if self._replay is None:
            if shapes != self._shapes:
                self._shapes, self._num_calls = shapes, 0
            if self._num_calls < _WARM_UPS:
                self._num_calls += 1
                return self._aside(function, inputs)
            self._capture(function, inputs)
        elif shapes != self._shapes:
            return function(*inputs)
        assert self._replay is not None
        for static, value in zip(self._inputs, inputs, strict=True):
            static.copy_(value)
        self._replay()
        for param, grad in self._grads:
            param.grad = grad
        return tuple(output.clone() for output in self._outputs)

    def drop_if_changed(self) -> None:
        """Drop the graph if the state has changed since it was recorded; it is then recorded again."""
        if self._replay is None or self._state() == self._recorded:
            return
        self._replay, self._shapes = None, []
        self._inputs, self._outputs, self._grads = (), (), []

    def _capture(self, function: TensorFunction, inputs: tuple[Tensor, ...]) -> None:
        self._inputs = tuple(value.clone() for value in inputs)
        self._replay, self._outputs = self._record(function, self._inputs)
        self._grads = [(param, param.grad) for param in self._params if param.grad is not None]
        self._recorded = self._state()

    def _aside(self, function: TensorFunction, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Call a function normally, on a stream that is not the default one, as torch asks before capturing."""
        self._stream = self._stream or torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            outputs = function(*inputs)
        torch.cuda.current_stream().wait_stream(self._stream)
        return outputs

    def _record(
        self, function: TensorFunction, inputs: tuple[Tensor, ...]
    ) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
        """Record a call without executing it; return what replays it, and its results."""
        graph = torch.cuda.CUDAGraph()
        # In a fork, so that the first replay draws the random numbers that the call would have drawn. Other threads
        # (the one for pinned memory) may call CUDA meanwhile.
        fork = torch.random.fork_rng(devices=[inputs[0].device])
        with fork, torch.cuda.graph(graph, capture_error_mode="thread_local"):
            outputs = function(*inputs)
        return graph.replay, outputs


def state_of_step(model: nn.Module, optimizer: SGD, ema: Ema | None) -> Hashable:
    """Return what a graph of a step keeps: addresses of tensors, and the optimizer's numbers other than its rates.

    Frozen weights are part of it: :meth:`SGD.freeze` makes new masks, and so a new graph.
    """
    momenta = [state.get("momentum_buffer") for state in optimizer.state.values()]
    averages = [] if ema is None else ema.averages
    tensors = [*model.parameters(), *model.buffers(), *momenta, *averages]
    return (
        tuple(None if tensor is None else tensor.data_ptr() for tensor in tensors),
        tuple(
            tuple((name, value) for name, value in group.items() if isinstance(value, (int, float)) and name != "lr")
            for group in optimizer.param_groups
        ),
        optimizer.num_freezes,
    )


def has_whole_step(training: TrainingConfig) -> bool:
    """Return whether a graph includes the optimizer's step; other --on-nan read the gradient's norm before it."""
    return training.cuda_graphs and training.on_nan == "stop"


def graph_line(training: TrainingConfig) -> str | None:
    """Return a line for the user about what is captured; None without --cuda-graphs."""
    if not training.cuda_graphs:
        return None
    if has_whole_step(training):
        return "--cuda-graphs: one graph has the passes, clipping, the optimizer's step and the moving average"
    return (
        f"--cuda-graphs: the graph has the passes only; the optimizer's step is launched outside it, because --on-nan "
        f"{training.on_nan} first waits for the norm of the gradient"
    )
