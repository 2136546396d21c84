"""A forward and backward pass as one CUDA graph: a small network's step on a GPU is mostly kernel launches.

The graph has the same kernels with the same addresses, so results have the same bits. It is captured at the first step
of a phase, after which the set of parameters with gradients does not change.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

# As in torch's examples: libraries initialize at their first calls, which must not be captured.
_WARM_UPS = 3


class CudaGraph:
    """Runs a function of tensors on one GPU by replaying its recorded kernels.

    Args:
        model: Network whose parameters get gradients; its buffers are restored after capturing.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tensor, ...] = ()
        self._output = torch.empty(0)
        self._grads: list[tuple[nn.Parameter, Tensor]] = []

    def run(self, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """Call the function by replaying the graph; gradients are those of this call alone.

        Args:
            function: A forward and a backward pass, always the same one, which reads nothing back from the GPU.
            inputs: Tensors on the GPU. If shapes differ from the first call (an image of the batch is left out), the
                function is called normally.

        Returns:
            The function's result.
        """
        if self._graph is None:
            self._capture(function, inputs)
        if [value.shape for value in inputs] != [static.shape for static in self._inputs]:
            return function(*inputs)
        assert self._graph is not None
        for static, value in zip(self._inputs, inputs, strict=True):
            static.copy_(value)
        self._graph.replay()
        for param, grad in self._grads:
            param.grad = grad
        return self._output.clone()

    def _capture(self, function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> None:
        self._inputs = tuple(value.clone() for value in inputs)
        before = [buffer.clone() for buffer in self._model.buffers()]
        # In a fork, so that random numbers in the first step are the same as in a resumed run.
        with torch.random.fork_rng(devices=[inputs[0].device]):
            self._warm_up(function)
            self._graph = torch.cuda.CUDAGraph()
            # Other threads (the one for pinned memory) may call CUDA meanwhile.
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._output = function(*self._inputs)
        self._grads = [(param, param.grad) for param in self._model.parameters() if param.grad is not None]
        with torch.no_grad():
            for buffer, value in zip(self._model.buffers(), before, strict=True):
                buffer.copy_(value)

    def _warm_up(self, function: Callable[..., Tensor]) -> None:
        """Leave no gradients, so that the graph allocates its own and overwrites them at each replay."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                _drop_gradients(self._model.parameters())
                function(*self._inputs)
        torch.cuda.current_stream().wait_stream(stream)
        _drop_gradients(self._model.parameters())


def _drop_gradients(params: Iterable[nn.Parameter]) -> None:
    for param in params:
        param.grad = None
