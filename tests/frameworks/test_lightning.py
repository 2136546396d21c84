"""INQ inside Lightning's Trainer, killed and resumed from its checkpoint."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import inq_ray
from tests.frameworks import network as shared

lightning = pytest.importorskip("lightning")
pytestmark = [pytest.mark.system, pytest.mark.filterwarnings("ignore:::(lightning|torch)")]

KILLED_EPOCH = 2  # while its stage is trained; the checkpoint is of the end of the epoch before


class Classifier(lightning.LightningModule):  # type: ignore[misc, name-defined]
    """A stage an epoch; the scheduler's state is in Lightning's own checkpoints."""

    def __init__(self, killed_epoch: int | None = None) -> None:
        super().__init__()
        self.net = shared.network()
        self.killed_epoch = killed_epoch
        self.loaded_inq: dict[str, Any] | None = None

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = shared.sgd(self)
        self.inq = inq_ray.INQScheduler(optimizer, shared.PORTIONS, model=self)
        lr_scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3, gamma=0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": lr_scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["inq"] = self.inq.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.loaded_inq = checkpoint.get("inq")  # the optimizer is loaded later

    def on_train_start(self) -> None:
        if self.loaded_inq is not None:
            self.inq.load_state_dict(self.loaded_inq)

    def on_train_epoch_start(self) -> None:
        if self.inq.stage == self.current_epoch:
            inq_ray.reset_lr_scheduler(self.lr_schedulers())
            self.inq.step()

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        inq_ray.clip_grad_norm_(optimizer, max_norm=1.0)

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        if self.current_epoch == self.killed_epoch and index == 1:
            shared.kill_this_process()
        inputs, labels = batch
        return nn.functional.cross_entropy(self.net(inputs), labels)


class WithoutScheduler(Classifier):
    """Restores what Lightning restores by itself, the optimizer among it, and does no stage."""

    def on_train_start(self) -> None:
        pass

    def on_train_epoch_start(self) -> None:
        pass


def fit(module: Classifier, folder: Path, resume: Path | None = None) -> Classifier:
    from lightning.pytorch.callbacks import ModelCheckpoint

    torch.set_num_threads(1)
    torch.manual_seed(3)
    loader: DataLoader[Any] = DataLoader(shared.data(), batch_size=shared.BATCH_SIZE)
    trainer = lightning.Trainer(
        max_epochs=len(shared.PORTIONS),
        accelerator="cpu",
        devices=1,
        default_root_dir=folder,
        callbacks=[ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, loader, ckpt_path=resume, weights_only=True)
    return module


def run_killed(folder: Path) -> None:
    fit(Classifier(KILLED_EPOCH), folder)


def saved_frozen(path: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Return what was frozen when the checkpoint was written, from its file."""
    saved = torch.load(path, weights_only=True)
    return {
        name: (state["frozen"], saved["state_dict"][name][state["frozen"]])
        for name, state in saved["inq"]["tensors"].items()
    }


def test_killed_and_resumed_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    shared.run_until_killed(run_killed, tmp_path)
    checkpoint = tmp_path / f"epoch={KILLED_EPOCH - 1}.ckpt"
    before = saved_frozen(checkpoint)
    resumed = fit(Classifier(), tmp_path / "resumed", checkpoint)
    shared.check_kept(resumed, before)
    whole = fit(Classifier(), tmp_path / "whole")
    shared.check_same_end(resumed, whole, (resumed.inq, whole.inq))


def test_resumed_without_the_schedulers_state_frozen_weights_stay_and_no_stage_is_done(tmp_path: Path) -> None:
    fit(Classifier(), tmp_path)
    checkpoint = tmp_path / "epoch=1.ckpt"
    before = saved_frozen(checkpoint)
    module = fit(WithoutScheduler(), tmp_path / "resumed", checkpoint)
    shared.check_kept(module, before)
    with pytest.raises(ValueError, match=r"they are from different stages; load the states of both"):
        module.inq.step()
