"""A step of inq_ray.SGD over ResNet-18 against torch.optim.SGD(fused=True), with more and more frozen.

Partly frozen tensors are stepped in both ways: by the loop that LLVM makes (inq-ray[fast]), and by torch's operations.
"""

import math

import torch
import torchvision
from timing import Case, report, take_turns
from torch import nn

from inq_ray.core import one_pass
from inq_ray.core.one_pass import Kernels
from inq_ray.core.optim.sgd import SGD

FROZEN = (0.0, 0.2, 0.5, 0.75, 0.875, 1.0)
FROZEN_WITHOUT_LOOP = (0.5, 0.875)


def make_optimizer(portion: float | None) -> torch.optim.SGD:
    """SGD over ResNet-18 with gradients, this portion of its conv and linear weights frozen; None: torch's own."""
    torch.manual_seed(0)
    params = [nn.Parameter(param.detach()) for param in torchvision.models.resnet18().parameters()]
    kind = torch.optim.SGD if portion is None else SGD
    optimizer = kind(params, lr=1e-3, momentum=0.9, weight_decay=5e-4, fused=True)
    for param in params:
        param.grad = torch.randn_like(param) * 1e-3
        if isinstance(optimizer, SGD) and param.ndim > 1:
            optimizer.freeze(param, torch.rand_like(param) < (portion or 0.0))
    return optimizer


def make_case(optimizer: torch.optim.SGD, kernels: Kernels) -> Case:
    """A step with these loops."""
    return Case(run=lambda _: optimizer.step(), prepare=lambda: setattr(one_pass, "kernels", kernels))


def main() -> None:
    """Runs on one thread, which is what a worker for each core gets."""
    torch.set_num_threads(1)
    loops, none = Kernels(worthwhile=0), Kernels(worthwhile=math.inf)
    cases = {"torch": make_case(make_optimizer(None), none)}
    cases |= {f"{portion:g} frozen": make_case(make_optimizer(portion), loops) for portion in FROZEN}
    cases |= {
        f"{portion:g} frozen, torch's operations": make_case(make_optimizer(portion), none)
        for portion in FROZEN_WITHOUT_LOOP
    }
    for case in cases.values():
        case.prepare()
        case.run(None)  # the first step of all has no momentum yet, and a loop of its own
    report("An SGD step over ResNet-18", take_turns(cases, num_rounds=40), reference="torch", notes={})


if __name__ == "__main__":
    main()
