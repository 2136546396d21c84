"""INQ inside transformers.Trainer, killed and resumed from its checkpoint."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import inq_ray
from tests.frameworks import network as shared

pytest.importorskip("transformers")
pytestmark = [pytest.mark.system, pytest.mark.filterwarnings("ignore:::(transformers|accelerate|torch)")]

SAVED_STEP, KILLED_STEP = 10, 11  # in the middle of the third stage


class Classifier(nn.Module):
    """What Trainer trains: its forward takes labels and returns the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.net = shared.network()

    def forward(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.net(nn.functional.dropout(inputs, 0.1))  # Trainer restores torch's random state too
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def callback(inq: inq_ray.INQScheduler, *, killed_at: int | None) -> Any:
    from transformers import TrainerCallback

    class INQCallback(TrainerCallback):
        """A stage an epoch; its state stands in the Trainer's own checkpoint folders."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step:
                path = Path(args.output_dir, f"checkpoint-{state.global_step}", "inq.pt")
                inq.load_state_dict(torch.load(path, weights_only=True))

        def on_epoch_begin(self, args: Any, state: Any, control: Any, lr_scheduler: Any, **_: Any) -> None:
            if inq.stage == int(state.epoch or 0):
                inq_ray.reset_lr_scheduler(lr_scheduler)
                inq.step()

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any, **_: Any) -> None:
            inq_ray.clip_grad_norm_(optimizer, max_norm=1.0)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == killed_at:
                shared.kill_this_process()

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            torch.save(inq.state_dict(), Path(args.output_dir, f"checkpoint-{state.global_step}", "inq.pt"))

    return INQCallback()


def run(
    folder: Path, *, killed_at: int | None = None, resume: str | bool | None = None, has_callback: bool = True
) -> tuple[nn.Module, inq_ray.INQScheduler, Any]:
    from transformers import Trainer, TrainingArguments

    torch.set_num_threads(1)
    model = Classifier()
    optimizer = shared.sgd(model)
    inq = inq_ray.INQScheduler(optimizer, shared.PORTIONS, model=model)
    args = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=len(shared.PORTIONS),
        per_device_train_batch_size=shared.BATCH_SIZE,
        save_steps=SAVED_STEP,
        max_grad_norm=0.0,  # else Trainer clips by its own norm, which counts gradients of frozen weights
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Trainer(
        model,
        args,
        train_dataset=[{"inputs": inputs, "labels": label} for inputs, label in shared.data()],
        optimizers=(optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)),
        callbacks=[callback(inq, killed_at=killed_at)] if has_callback else [],
    )
    trainer.train(resume_from_checkpoint=resume)
    return model, inq, trainer


def run_killed(folder: Path) -> None:
    run(folder, killed_at=KILLED_STEP)


def saved_frozen(folder: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Return what was frozen when the checkpoint was written, from its files."""
    from safetensors.torch import load_file

    weights = load_file(folder / "model.safetensors")
    states = torch.load(folder / "inq.pt", weights_only=True)["tensors"]
    return {name: (state["frozen"], weights[name][state["frozen"]]) for name, state in states.items()}


def test_killed_and_resumed_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    shared.run_until_killed(run_killed, tmp_path / "killed")
    before = saved_frozen(tmp_path / "killed" / f"checkpoint-{SAVED_STEP}")
    resumed, inq, trainer = run(tmp_path / "killed", resume=True)
    shared.check_kept(resumed, before)
    whole, whole_inq, _ = run(tmp_path / "whole")
    shared.check_same_end(resumed, whole, (inq, whole_inq))
    assert trainer.state.global_step == len(shared.PORTIONS) * shared.STEPS_PER_EPOCH


def test_resumed_without_the_schedulers_state_frozen_weights_stay_and_no_stage_is_done(tmp_path: Path) -> None:
    run(tmp_path)
    checkpoint = tmp_path / f"checkpoint-{SAVED_STEP}"
    before = saved_frozen(checkpoint)
    model, inq, _ = run(tmp_path, resume=str(checkpoint), has_callback=False)
    shared.check_kept(model, before)
    with pytest.raises(ValueError, match=r"they are from different stages; load the states of both"):
        inq.step()
