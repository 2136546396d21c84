import pytest

from tests.results.checkouts import small_run
from tests.training.runs import Finished


@pytest.fixture(scope="session")
def small_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Finished]:
    """Two seeds, one of them with a random partition too, and two runs by which something might be chosen."""
    storage = tmp_path_factory.mktemp("runs")
    held_out = {"holdout": 200}
    return {
        "five-0": small_run(storage, "five-0"),
        "five-1": small_run(storage, "five-1", seed=1),
        "random-0": small_run(storage, "random-0", quantization={"strategy": "random"}),
        "two-0": small_run(storage, "two-0", quantization={"weight_bits": 2, "codebook": "mse"}),
        "held-0": small_run(storage, "held-0", data=held_out),
        "held-lr-0": small_run(storage, "held-lr-0", data=held_out, training={"lr": 0.001}),
    }
