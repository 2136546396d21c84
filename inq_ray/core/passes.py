"""Forward passes that pause at calls of layers, so that several can advance together from layer to layer."""

import threading
from collections.abc import Iterable
from types import TracebackType
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn


class Call(NamedTuple):
    """A module that is about to be called in a pass.

    Attributes:
        module: The module.
        args: Its arguments.
        kwargs: Its named arguments.
    """

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class _AbandonedError(BaseException):
    """Ends the thread of an abandoned pass; not an Exception, which a network may catch."""


class Pass:
    """A forward pass without gradients that pauses at the first call of each given module.

    It has its own thread but runs only within :meth:`advance`, so it never runs concurrently with the caller. Leaving
    the context abandons an unfinished pass.

    Args:
        network: The network.
        batch: Input of the network.
        modules: Modules of the network at which the pass pauses.
    """

    def __init__(self, network: nn.Module, batch: Tensor, modules: Iterable[nn.Module]) -> None:
        self._network, self._batch, self._left = network, batch, set(modules)
        self._may_run, self._stands = threading.Semaphore(0), threading.Semaphore(0)
        self._call: Call | None = None
        self._error: BaseException | None = None
        self._is_abandoned = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._handles = [module.register_forward_pre_hook(self._stop, with_kwargs=True) for module in self._left]
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_abandoned = True
        self._may_run.release()
        self._thread.join()
        for handle in self._handles:
            handle.remove()

    def advance(self) -> Call | None:
        """Run to the next pause and return its call; None if the pass has ended.

        Raises:
            Exception: Any exception of the network.
        """
        self._call = None
        self._may_run.release()
        self._stands.acquire()
        if self._error is not None:
            raise self._error
        return self._call

    def _run(self) -> None:
        self._may_run.acquire()
        try:
            if not self._is_abandoned:
                with torch.no_grad():
                    self._network(self._batch)
        except _AbandonedError:
            pass
        except BaseException as error:  # noqa: BLE001  # raised by advance
            self._error = error
        self._left.clear()
        self._stands.release()

    def _stop(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if threading.current_thread() is not self._thread or module not in self._left:
            return
        self._left.remove(module)
        self._call = Call(module, args, kwargs)
        self._stands.release()
        self._may_run.acquire()
        if self._is_abandoned:
            raise _AbandonedError
