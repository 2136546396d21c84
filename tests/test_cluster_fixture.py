"""The session's Ray cluster is what the tests on Ray take it for."""

import os
from pathlib import Path

import pytest

from tests.conftest import RayCluster

pytestmark = pytest.mark.ray


def _sum_of_ranks(config: dict[str, str]) -> None:
    import ray.train
    import torch

    total = torch.tensor(ray.train.get_context().get_world_rank() + 1)
    torch.distributed.all_reduce(total)
    Path(config["folder"], f"rank_{torch.distributed.get_rank()}").write_text(f"{total.item()} {os.environ['HOME']}")
    ray.train.report({"total": total.item()})


def test_two_workers_reach_each_other_and_leave_the_home_alone(ray_cluster: RayCluster, tmp_path: Path) -> None:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    trainer = TorchTrainer(
        _sum_of_ranks,
        train_loop_config={"folder": str(tmp_path)},
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(name="ranks", storage_path=str(tmp_path / "results")),
    )
    trainer.fit()
    home = Path(os.environ["HOME"])
    assert [path.read_text() for path in sorted(tmp_path.glob("rank_*"))] == [f"3 {home}"] * 2
    assert ray_cluster.address.startswith("127.0.0.2:")
    assert list(home.iterdir()) == []
