"""The best trial: measured on the test set, and as what can be run again."""

from inq_ray.sweep.plan import SweepPlan
from inq_ray.sweep.trial import Trial
from inq_ray.training.build import image_preset
from inq_ray.training.config import RunConfig
from inq_ray.training.next_command import tagged_arch
from inq_ray.training.run_folder import RunFolder


def config_on_test_set(plan: SweepPlan, trial: Trial) -> RunConfig | None:
    """The configuration with which a trial's result is measured on the test set; None where there is no test set.

    The network sees images as the trial's did.
    """
    if plan.info.num_test == 0:
        return None
    config = trial.config
    folder = RunFolder.planned(config)
    sizes = {}
    if plan.info.is_streamed:
        preset = image_preset(config)
        sizes = {
            "crop_size": preset.crop_size,
            "resize_size": preset.resize_size,
            "interpolation": preset.interpolation,
        }
    return config.replace(
        data={"holdout": 0, **sizes},
        network={
            "arch": tagged_arch(config.network),
            "weights": str(folder.result / "model.safetensors"),
            "replace_head": False,
        },
    )


def recipe_of(trial: Trial) -> RunConfig:
    """The trial's configuration without its place in the sweep."""
    unsaid = RunConfig().output
    return trial.config.replace(
        output={"storage_path": unsaid.storage_path, "name": None, "checkpoint_path": unsaid.checkpoint_path}
    )
