"""On a GPU the same results as on the CPU; `make test-gpu` runs these."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from inq_ray.core.optim.sgd import SGD
from inq_ray.core.packing import pack_codes, unpack_codes
from inq_ray.core.stage import apply, decide
from inq_ray.core.state import TensorState
from inq_ray.data.augment.crop_flip import CropFlip
from inq_ray.data.memory_set import ImageSet
from inq_ray.models.registry import create
from inq_ray.training.config.recipes import default_recipe
from inq_ray.training.loop.batches import seed_step_rng
from inq_ray.training.loop.clip import clip_live_gradients
from inq_ray.training.loop.cuda_graph import CudaGraph
from inq_ray.training.loop.ema import Ema
from inq_ray.training.report.events import SilentReporter
from inq_ray.training.run import run
from inq_ray.training.run_folder import RunFolder
from inq_ray.training.task.autocast_cache import Bf16Network

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("strategy", ["pruning", "random"])
def test_all_stages_give_the_bits_of_the_cpu(dtype: torch.dtype, strategy: str) -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(64, 33, 3, 3, generator=generator).to(dtype)
    weight[:8] = 0  # ties
    on_cpu, on_gpu = weight.clone(), weight.cuda().to(memory_format=torch.channels_last)
    cpu_state, gpu_state = TensorState.live(on_cpu, 4), TensorState.live(on_gpu, 4)
    for stage, portion in enumerate((0.3, 0.62, 1.0)):
        for tensor, state in ((on_cpu, cpu_state), (on_gpu, gpu_state)):
            update = decide(tensor, state, portion, name="w", strategy=strategy, seed=5, stage=stage)
            apply(tensor, state, update)
        assert gpu_state.codebook == cpu_state.codebook
        assert gpu_state.frozen.cpu().equal(cpu_state.frozen)
        assert gpu_state.codes.cpu().equal(cpu_state.codes)
        assert on_gpu.cpu().contiguous().equal(on_cpu)


def test_codes_are_packed_as_on_the_cpu() -> None:
    for num_bits in range(1, 9):
        codes = torch.randint(2**num_bits, (1001,), dtype=torch.uint8)
        packed = pack_codes(codes.cuda(), num_bits)
        assert packed.cpu().equal(pack_codes(codes, num_bits))
        assert unpack_codes(packed, num_bits, 1001).cpu().equal(codes)


@pytest.mark.parametrize("form", [{"fused": True}, {"foreach": True}, {"foreach": False}], ids=str)
def test_frozen_weights_keep_their_bits_and_live_ones_move_as_in_torch(form: dict[str, bool]) -> None:
    torch.manual_seed(2)
    start = torch.randn(1000, device="cuda")
    frozen = torch.rand(1000, device="cuda") < 0.5
    start[frozen] = 0.25
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-2, "nesterov": True}
    optimizer, reference = SGD([ours], **options, **form), torch.optim.SGD([theirs], **options, **form)
    optimizer.freeze(ours, frozen)
    for _ in range(5):
        ours.grad = torch.randn(1000, device="cuda")
        theirs.grad = ours.grad.clone()
        optimizer.step()
        reference.step()
    assert ours[frozen].equal(start[frozen])
    assert ours[~frozen].equal(theirs[~frozen])
    assert not optimizer.state[ours]["momentum_buffer"][frozen].any()


@pytest.mark.parametrize("portion", [0.0, 0.5])
def test_gradients_are_clipped_by_the_norm_over_live_weights(portion: float) -> None:
    torch.manual_seed(3)
    params = [torch.nn.Parameter(torch.randn(shape, device="cuda")) for shape in ((64, 33, 3, 3), (100,))]
    frozen = [torch.rand(param.shape, device="cuda") < portion for param in params]
    optimizer = SGD(params)
    for param, mask in zip(params, frozen, strict=True):
        optimizer.freeze(param, mask)
        param.grad = torch.randn_like(param)
    live = [grad[~mask] for mask, param in zip(frozen, params, strict=True) if (grad := param.grad) is not None]
    others = [torch.nn.Parameter(torch.zeros_like(grad)) for grad in live]
    for other, grad in zip(others, live, strict=True):
        other.grad = grad.clone()
    norm = clip_live_gradients(optimizer, 1.0)
    torch.testing.assert_close(norm, torch.nn.utils.clip_grad_norm_(others, 1.0), rtol=1e-6, atol=0.0)
    for param, mask, other in zip(params, frozen, others, strict=True):
        assert param.grad is not None
        torch.testing.assert_close(param.grad[~mask], other.grad, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.5, 0.75, 0.999])
def test_the_average_of_equal_levels_is_the_level(decay: float) -> None:
    levels = torch.tensor([0.0, *(sign * 2.0**k for k in range(-126, 128) for sign in (1, -1))], device="cuda")
    model = torch.nn.ParameterList([torch.nn.Parameter(levels.clone())])
    ema = Ema(model, decay)
    for _ in range(3):
        ema.update()
    assert ema.state_dict()["0"].view(torch.int32).equal(levels.view(torch.int32))


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_a_run_ends_with_every_weight_verified(precision: str, tmp_path: Path) -> None:
    config = default_recipe("digits_cnn", 5).replace(
        cluster={"use_gpu": True, "num_workers": 1},
        training={"epochs": 1, "float_epochs": 4, "precision": precision},
        output={"storage_path": str(tmp_path), "name": precision},
    )
    summary = run(config, device=torch.device("cuda", 0), reporter=SilentReporter(), folder=RunFolder.create(config))
    assert summary["verification"]["num_weights"] == 25744
    assert summary["top1"] > 90


@pytest.mark.parametrize(
    "training",
    [
        {"distill": True, "bn_images": 256},
        {"mixup": 0.2, "clip_grad_norm": 1.0, "ema_decay": 0.9},
        {"mixup": 0.2, "clip_grad_norm": 1.0, "ema_decay": 0.9, "on_nan": "skip"},
    ],
    ids=["distilled", "mixed", "passes only"],
)
def test_a_run_by_cuda_graphs_ends_with_the_same_bits(training: dict[str, Any], tmp_path: Path) -> None:
    digests = []
    for graphs in (False, True):
        config = default_recipe("digits_cnn", 5).replace(
            cluster={"use_gpu": True, "num_workers": 1},
            training={"epochs": 1, "float_epochs": 2, "cuda_graphs": graphs, **training},
            output={"storage_path": str(tmp_path), "name": f"graphs-{graphs}"},
        )
        device, folder = torch.device("cuda", 0), RunFolder.create(config)
        digests.append(run(config, device=device, reporter=SilentReporter(), folder=folder)["digest"])
    assert digests[0] == digests[1]


def test_a_graph_draws_and_normalizes_as_the_launches_it_replaces() -> None:
    device = torch.device("cuda", 0)
    results = []
    for graph in (False, True):
        torch.manual_seed(4)
        layers = torch.nn.Linear(8, 16), torch.nn.BatchNorm1d(16), torch.nn.Dropout(0.5), torch.nn.Linear(16, 3)
        model = torch.nn.Sequential(*layers).to(device)
        passes = CudaGraph(model, tuple)

        def forward_backward(inputs: torch.Tensor, model: torch.nn.Module = model) -> tuple[torch.Tensor]:
            loss = model(inputs).square().sum()
            loss.backward()
            return (loss.detach(),)

        seen = []
        for step in range(7):  # three without the graph, replays, and one of another shape
            inputs = torch.randn(4 if step == 5 else 5, 8, generator=torch.Generator().manual_seed(step)).to(device)
            model.zero_grad(set_to_none=True)
            seed_step_rng(device, 0, 0, step, 0)
            seen += passes.run(forward_backward, inputs) if graph else forward_backward(inputs)
            seen += [param.grad.clone() for param in model.parameters() if param.grad is not None]
            seen += [buffer.clone() for buffer in model.buffers()]
        results.append(seen)
    assert len(results[0]) == len(results[1])
    assert all(one.equal(other) for one, other in zip(*results, strict=True))


def test_statistics_are_estimated_to_the_same_bits_each_time(tmp_path: Path) -> None:
    digests = []
    for name in ("one", "two"):
        config = default_recipe("digits_cnn", 5).replace(
            cluster={"use_gpu": True, "num_workers": 1},
            training={"epochs_each": (1, 0, 0, 1), "float_epochs": 1, "bn_images": 640},
            output={"storage_path": str(tmp_path), "name": name},
        )
        folder = RunFolder.create(config)
        digests.append(run(config, device=torch.device("cuda", 0), reporter=SilentReporter(), folder=folder)["digest"])
    assert digests[0] == digests[1]


@pytest.mark.parametrize(("arch", "shape"), [("digits_cnn", (64, 1, 8, 8)), ("cifar_resnet20", (128, 3, 32, 32))])
def test_a_teacher_whose_weights_are_cast_once_says_the_same_bits(arch: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(4)
    model = create(arch, num_classes=10, in_channels=shape[1]).requires_grad_(False).eval()
    model = model.to("cuda", memory_format=torch.channels_last)  # type: ignore[call-overload]
    network = Bf16Network(model)
    for _ in range(2):
        inputs = torch.randn(shape, device="cuda").contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
            due = model(inputs).float()
        assert network(inputs).view(torch.int32).equal(due.view(torch.int32))
    assert network._called is not model, "weights were cast at each call"


@pytest.mark.parametrize("augment", [None, (3, 4)])
def test_images_kept_on_the_gpu_are_those_of_the_cpu(augment: tuple[int, int] | None) -> None:
    pixels = torch.randint(256, (500, 3, 32, 32), dtype=torch.uint8)
    on_cpu = ImageSet(pixels, torch.arange(500), CropFlip(padding=4, flip=True))
    samples = torch.randperm(500)[:128]
    images, labels, _ = on_cpu.to(torch.device("cuda", 0)).fetch(samples, augment)
    due = on_cpu.fetch(samples, augment)
    assert images.is_cuda
    assert images.cpu().equal(due.images)
    assert labels.cpu().equal(due.labels)


@pytest.mark.parametrize("form", [{"fused": True}, {"foreach": True}, {}], ids=str)
def test_launches_of_a_step_do_not_grow_with_the_number_of_tensors(form: dict[str, bool]) -> None:
    launches = []
    for num in (4, 40):
        params = [torch.nn.Parameter(torch.randn(8, 5, 3, 3, device="cuda")) for _ in range(num)]
        optimizer = SGD(params, lr=0.1, momentum=0.9, weight_decay=1e-2, **form)
        for param in params:
            optimizer.freeze(param, torch.rand(param.shape, device="cuda") < 0.5)
            param.grad = torch.randn_like(param)
        optimizer.step()
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
            optimizer.step()
            torch.cuda.synchronize()
        launches.append(sum(event.name.startswith(("cudaLaunch", "cuLaunch")) for event in profiled.events() or ()))
    assert launches[0] == launches[1]
    assert 0 < launches[0] <= 12
