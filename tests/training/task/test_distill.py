"""Stages that learn what the float network says: the loss, who the teacher is, and that it does not change."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from inq_ray.models.registry import create
from inq_ray.training.config import RunConfig, TrainingConfig
from inq_ray.training.run_state import RunState
from inq_ray.training.task.check import check
from inq_ray.training.task.distill import Teacher, distillation_loss, make_teacher
from tests.ranks import run_ranks
from tests.training.loop.test_trainer import make_trainer
from tests.training.runs import configured, needs_digits, run_here, run_in_parts
from tests.training.toys import toy_network, toy_task


def logits_of(seed: int, num: int = 5, classes: int = 4) -> Tensor:
    return torch.randn(num, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.integers(0, 99), st.floats(0.2, 20))
def test_the_loss_is_the_papers(seed: int, temperature: float) -> None:
    student, teacher = logits_of(seed), 3 * logits_of(seed + 1000)
    due = 0.0
    for row, target in zip(student, teacher, strict=True):
        q = (row / temperature).exp() / (row / temperature).exp().sum()
        p = (target / temperature).exp() / (target / temperature).exp().sum()
        due += temperature**2 * float((p * (p / q).log()).sum())
    assert distillation_loss(student, teacher, temperature).item() == pytest.approx(due, rel=1e-9, abs=1e-12)


def test_a_student_that_says_the_same_has_nothing_to_learn() -> None:
    student = logits_of(0).requires_grad_()
    loss = distillation_loss(student, student.detach() + 7, 3.0)  # softmax does not see a constant
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-12


def test_at_high_temperatures_its_gradient_is_that_of_matching_logits() -> None:
    """Hinton et al., equation 4: (z - v) / classes for zero-meaned logits z and v."""
    student, teacher = (logits - logits.mean(1, keepdim=True) for logits in (logits_of(0), logits_of(1)))
    student.requires_grad_()
    distillation_loss(student, teacher, 1e4).backward()
    torch.testing.assert_close(student.grad, (student.detach() - teacher) / 4, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("labels", [0.0, 0.3])
def test_labels_have_the_weight_that_is_asked_for(labels: float) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(8, 4))
    inputs, student = torch.randn(5, 1, 2, 4), logits_of(3).float()
    teacher = Teacher(model=network, temperature=2.0, labels=labels)
    with torch.autocast("cpu", torch.bfloat16):
        targets = network(inputs).detach().float()
    due = labels * 11 + (1 - labels) * distillation_loss(student, targets, 2.0)
    assert teacher.loss(inputs, student, torch.tensor(11.0)).item() == pytest.approx(due.item(), rel=1e-6)


def test_a_step_moves_the_student_and_leaves_the_teacher() -> None:
    model = toy_network(seed=1)
    teacher = Teacher(model=copy.deepcopy(toy_network(seed=2)).requires_grad_(False).eval(), temperature=3.0, labels=0)
    before = {name: tensor.clone() for name, tensor in teacher.model.state_dict().items()}
    trainer = make_trainer(48, model, batch_size=12)
    object.__setattr__(trainer, "teacher", teacher)
    losses = [trainer.train_epoch(epoch, lambda _: None).loss for epoch in range(8)]
    assert losses[-1] < losses[0] / 2, losses
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.model.state_dict().items())
    assert not any(param.grad is not None for param in teacher.model.parameters())


def distilled(size: int, storage: Path) -> list[tuple[str, str, int]]:
    """Digests of a run of two phases that is not stopped, and of one that is, with its teacher's tensors in between."""
    calm = run_here(configured(storage, "calm", training={"distill": True}))
    stopped = configured(storage, "stopped", training={"distill": True})
    digest, _ = run_in_parts(stopped, [(1, 1, 3), (2, 1, 0) if size == 1 else (2, 2, 2)])
    plain = run_here(configured(storage, "labels"))
    return [(calm.summary["digest"], digest, plain.summary["digest"])]


@needs_digits
@pytest.mark.system
@pytest.mark.parametrize("size", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_run_that_is_stopped_goes_on_with_the_same_teacher(size: int, tmp_path: Path) -> None:
    """Its teacher is the network as it was before the first stage, which is no longer there."""
    answers = {answer for rank in run_ranks(distilled, size, size, tmp_path) for answer in rank}
    assert len(answers) == 1
    calm, stopped, labels = answers.pop()
    assert calm == stopped
    assert calm != labels


def with_teacher(storage: Path, name: str, weights: Path, **training: Any) -> RunConfig:
    return configured(
        storage,
        name,
        network={"weights": str(weights), "accept_float_accuracy": True},  # fresh ones know nothing
        training={"float_epochs": 0, "distill": True, "teacher": str(storage / "teacher.safetensors"), **training},
    )


@needs_digits
@pytest.mark.system
def test_a_teacher_of_a_file_is_the_one_that_the_run_began_with(tmp_path: Path) -> None:
    student, teacher = tmp_path / "student.safetensors", tmp_path / "teacher.safetensors"
    for seed, path in ((1, student), (2, teacher)):
        save_file(fresh_weights(seed), path)
    calm = run_here(with_teacher(tmp_path, "calm", student)).summary["digest"]
    own = run_here(with_teacher(tmp_path, "own", student, teacher=None)).summary["digest"]
    assert own != calm
    stopped = with_teacher(tmp_path, "stopped", student)
    on_restore = RunState.restore

    def change_file(self: RunState, parts: Any) -> None:
        save_file(fresh_weights(3), teacher)
        on_restore(self, parts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunState, "restore", change_file)
        digest, _ = run_in_parts(stopped, [(1, 2, 2)])
    assert torch.equal(load_file(teacher)["classifier.weight"], fresh_weights(3)["classifier.weight"])
    save_file(fresh_weights(3), teacher)
    assert run_here(with_teacher(tmp_path, "another", student)).summary["digest"] != calm
    assert digest == calm


@needs_digits
def test_a_teacher_that_does_not_fit_is_named_before_anything_starts(tmp_path: Path) -> None:
    student, teacher = tmp_path / "student.safetensors", tmp_path / "teacher.safetensors"
    save_file(fresh_weights(1), student)
    with pytest.raises(ValueError, match=r"^--teacher: weights: no such file: .*teacher.safetensors"):
        check(with_teacher(tmp_path, "a", student))
    save_file({**fresh_weights(1), "classifier.bias": torch.zeros(11)}, teacher)
    with pytest.raises(
        ValueError,
        match=r"^--teacher: .*classifier.bias \[11\] for \[10\].*; the file has 11 classes and the network 10$",
    ):
        check(with_teacher(tmp_path, "a", student))


@needs_digits
@pytest.mark.system
def test_a_teacher_of_another_network(tmp_path: Path) -> None:
    student = tmp_path / "student.safetensors"
    save_file(fresh_weights(1), student)
    save_file(fresh_weights(2, "cifar_resnet20"), tmp_path / "teacher.safetensors")
    config = with_teacher(tmp_path, "other", student, teacher_arch="cifar_resnet20")
    check(config)
    other = run_here(config).summary["digest"]
    stopped = with_teacher(tmp_path, "stopped", student, teacher_arch="cifar_resnet20")
    assert run_in_parts(stopped, [(1, 2, 2)])[0] == other
    assert run_here(with_teacher(tmp_path, "own", student, teacher=None)).summary["digest"] != other


@needs_digits
@pytest.mark.parametrize(
    ("arch", "weights", "reason"),
    [
        (
            "cifar_resnet20",
            "digits_cnn",
            r"--teacher: weights: .* does not fit ResNetCifar: .*; the file looks like --teacher-arch digits_cnn",
        ),
        ("cifar_resnet33", "digits_cnn", r"--teacher-arch: arch='cifar_resnet33' is not a known network; nearest: .*"),
        ("no_such_module:net", "digits_cnn", r"--teacher-arch: no_such_module:net: no module no_such_module in .*"),
        (
            "cifar_resnet20",
            "of_11_classes",
            r"--teacher: .*linear.bias \[11\] for \[10\].*; the file has 11 classes and the network 10",
        ),
        ("cifar_resnet20", "of_3_channels", r"--teacher: .*conv1.weight \[16, 3, 3, 3\] for \[16, 1, 3, 3\].*"),
        (
            "tests.training.task.test_distill:of_9_classes",
            "of_9_classes",
            r"--teacher-arch tests.*:of_9_classes returns \[2, 9\] for 2 image.*logits \[2, 10\]",
        ),
    ],
)
def test_a_teacher_of_another_network_that_does_not_fit(tmp_path: Path, arch: str, weights: str, reason: str) -> None:
    student = tmp_path / "student.safetensors"
    save_file(fresh_weights(1), student)
    of = {
        "digits_cnn": lambda: fresh_weights(2),
        "of_11_classes": lambda: create("cifar_resnet20", num_classes=11, in_channels=1).state_dict(),
        "of_3_channels": lambda: create("cifar_resnet20", num_classes=10).state_dict(),
        "of_9_classes": lambda: of_9_classes().state_dict(),
    }
    save_file(of[weights](), tmp_path / "teacher.safetensors")
    with pytest.raises(ValueError, match=f"^{reason}$"):
        check(with_teacher(tmp_path, "a", student, teacher_arch=arch))


def of_9_classes() -> nn.Module:
    """A network that does not take num_classes."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 9))


def test_a_teacher_of_another_network_draws_no_random_numbers_of_the_run(tmp_path: Path) -> None:
    save_file(fresh_weights(2, "cifar_resnet20", classes=3), tmp_path / "t.safetensors")
    path = str(tmp_path / "t.safetensors")
    training = TrainingConfig(distill=True, teacher=path, teacher_arch="cifar_resnet20")
    task = toy_task(1)
    torch.manual_seed(7)
    due = torch.rand(3)
    torch.manual_seed(7)
    teacher = make_teacher(training, "digits_cnn", task)
    assert torch.equal(torch.rand(3), due)
    assert teacher is not None
    assert all(torch.equal(tensor, load_file(path)[name]) for name, tensor in teacher.model.state_dict().items())


def test_without_being_asked_for_there_is_none() -> None:
    assert make_teacher(TrainingConfig(), "resnet18", toy_task(1)) is None


def test_the_teacher_is_the_network_as_it_is_then_and_is_its_own() -> None:
    model = toy_network(seed=5)
    training = TrainingConfig(distill=True, distill_temperature=2.0, distill_labels=0.1)
    teacher = make_teacher(training, "resnet18", toy_task(1, model))
    assert teacher is not None
    assert (teacher.temperature, teacher.labels, teacher.model.training) == (2.0, 0.1, False)
    before = model[0].weight.detach().clone()
    with torch.no_grad():
        model[0].weight.zero_()
    assert torch.equal(teacher.model.get_parameter("0.weight"), before)
    assert not any(param.requires_grad for param in teacher.model.parameters())


def fresh_weights(seed: int, arch: str = "digits_cnn", classes: int = 10) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return dict(create(arch, num_classes=classes, in_channels=1).state_dict())
