"""Notices to a worker that its machine is about to be shut down: SIGTERM, or Ray's own for a draining node."""

import os
import signal
import threading
from typing import Any

import ray.train
from ray.train.torch import TorchConfig

from inq_ray.cluster.node.interface import choose_for_gloo, node_address

# Ray's notice is checked at every so many looks, because all ranks have to answer with a message.
_LOOKS = 5
_HAS_COME = threading.Event()


def listen() -> None:
    """Keep SIGTERM from ending this process; called in its main thread."""
    _HAS_COME.clear()
    signal.signal(signal.SIGTERM, lambda *_: _HAS_COME.set())


class Notice:
    """Check for such a notice. Every rank asks equally often."""

    def __init__(self) -> None:
        self._num_looks = 0
        self._has_watcher = os.environ.get("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "1") != "0"

    def has_come(self) -> bool:
        """Return the answer at once, except for an occasional message on clusters of several machines."""
        if self._has_watcher:
            self._num_looks += 1
            if self._num_looks % _LOOKS == 0 and ray.train.get_preemption_info() is not None:
                _HAS_COME.set()
        return _HAS_COME.is_set()


class _ListeningBackend(TorchConfig().backend_cls):  # type: ignore[misc]
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        if len(set(worker_group.execute(node_address))) > 1:
            worker_group.execute(choose_for_gloo)
        super().on_start(worker_group, backend_config)

    def on_training_start(self, worker_group: Any, backend_config: Any) -> None:
        super().on_training_start(worker_group, backend_config)
        worker_group.execute(listen)


class ListeningTorchConfig(TorchConfig):
    """Ray Train's setup of torch.distributed, with :func:`choose_for_gloo` before it, and :func:`listen` after it.

    Workers listen in their main threads: the training function runs in another thread, where Python does not allow it.
    """

    @property
    def backend_cls(self) -> type[Any]:
        """Class that sets up the workers."""
        return _ListeningBackend
