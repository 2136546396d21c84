"""INQ in a loop of Accelerate's, killed and resumed from the state that it saved."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import inq_ray
from tests.frameworks import network as shared

pytest.importorskip("accelerate")
pytestmark = [pytest.mark.system, pytest.mark.filterwarnings("ignore:::(accelerate|torch)")]

SAVED_STEP, KILLED_STEP = 10, 11  # in the middle of the third stage


class Loop:
    """Everything that Accelerate prepares, and the number of steps done, which it saves too."""

    def __init__(self) -> None:
        from accelerate import Accelerator
        from accelerate.utils import DataLoaderConfiguration, set_seed

        torch.set_num_threads(1)
        set_seed(0)
        # The order of samples is then a function of seed and epoch, and so the same after resuming.
        self.accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True))
        self.num_steps = 0
        model = shared.network()
        optimizer = shared.sgd(model)
        lr_scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3, gamma=0.5)
        loader: DataLoader[Any] = DataLoader(shared.data(), batch_size=shared.BATCH_SIZE, shuffle=True)
        prepared = self.accelerator.prepare(model, optimizer, loader, lr_scheduler)
        self.model, self.optimizer, self.loader, self.lr_scheduler = prepared
        self.inq = inq_ray.INQScheduler(self.optimizer, shared.PORTIONS, model=self.model)
        self.accelerator.register_for_checkpointing(self.inq, self)

    def state_dict(self) -> dict[str, int]:
        return {"num_steps": self.num_steps}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.num_steps = state["num_steps"]

    def train(self, folder: Path | None = None, killed_at: int | None = None) -> None:
        """Train to the end, a stage an epoch; save at one step, die at another."""
        for epoch in range(self.num_steps // shared.STEPS_PER_EPOCH, len(shared.PORTIONS)):
            if self.inq.stage == epoch:
                inq_ray.reset_lr_scheduler(self.lr_scheduler)
                self.inq.step()
            self.loader.set_epoch(epoch)
            for inputs, labels in itertools.islice(self.loader, self.num_steps % shared.STEPS_PER_EPOCH, None):
                self.train_step(inputs, labels)
                if self.num_steps == SAVED_STEP and folder is not None:
                    self.accelerator.save_state(str(folder))
                if self.num_steps == killed_at:
                    shared.kill_this_process()

    def train_step(self, inputs: Tensor, labels: Tensor) -> None:
        self.optimizer.zero_grad()
        self.accelerator.backward(nn.functional.cross_entropy(self.model(inputs), labels))
        inq_ray.clip_grad_norm_(self.optimizer, max_norm=1.0)
        self.optimizer.step()
        self.lr_scheduler.step()
        self.num_steps += 1


def run_killed(folder: Path) -> None:
    Loop().train(folder, killed_at=KILLED_STEP)


def test_killed_and_resumed_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    shared.run_until_killed(run_killed, tmp_path / "saved")
    resumed = Loop()
    resumed.accelerator.load_state(str(tmp_path / "saved"))
    assert (resumed.inq.stage, resumed.num_steps) == (3, SAVED_STEP)
    before = shared.frozen_weights(resumed.inq)
    resumed.train()
    shared.check_kept(resumed.model, before)
    whole = Loop()
    whole.train(tmp_path / "whole")
    shared.check_same_end(resumed.model, whole.model, (resumed.inq, whole.inq))


def test_a_scheduler_that_accelerate_does_not_know_refuses_after_the_optimizer_is_restored(tmp_path: Path) -> None:
    saved = Loop()
    saved.train(tmp_path)
    resumed = Loop()
    resumed.accelerator._custom_objects.clear()
    saved.accelerator._custom_objects.clear()
    saved.accelerator.save_state(str(tmp_path / "without"))
    resumed.accelerator.load_state(str(tmp_path / "without"))
    before = shared.frozen_weights(saved.inq)
    for inputs, labels in resumed.loader:
        resumed.train_step(inputs, labels)
    shared.check_kept(resumed.model, before)
    with pytest.raises(ValueError, match=r"they are from different stages; load the states of both"):
        resumed.inq.step()
