"""Check of the float network's accuracy before anything is frozen."""

from inq_ray.data.image_set import SourceInfo
from inq_ray.models.weights.pretrained import stated_top1
from inq_ray.training.config import RunConfig
from inq_ray.training.evaluation.accuracy import Accuracy
from inq_ray.training.evaluation.float_accuracy import Doubt, FloatAccuracyError, doubt_about

_CAUSES_OF_GIVEN = (
    "are classes in another order, --mean, --std, --crop-size, --resize-size or --channels not as in training, or "
    "--weights of other data?"
)
_CAUSE_IN_ORDER = "rename the classes so that their sorted names are in the order of training"
_CAUSES_OF_TRAINED = "are images in folders of other classes, --float-epochs too few, or --float-lr too large?"


def doubt_of_given(config: RunConfig, info: SourceInfo, accuracy: Accuracy) -> Doubt | None:
    """Return what is wrong with the accuracy of given weights, if anything is.

    Weights with a random last layer (--replace-head) are not judged.
    """
    network = config.network
    if network.replace_head:
        return None
    stated = stated_top1(network.arch, network.weights)
    return doubt_about(accuracy, class_names=info.class_names, stated_top1=stated)


def warning_of_given(doubt: Doubt) -> str:
    """Return a line with what is wrong, the likely causes, and the flags to try."""
    return f"{doubt.what}: {_CAUSE_IN_ORDER if doubt.is_order else _CAUSES_OF_GIVEN}"


def warning_of_trained(info: SourceInfo, accuracy: Accuracy) -> str | None:
    """Return a line if a network trained by the run itself is near chance."""
    doubt = doubt_about(accuracy, class_names=info.class_names)
    return None if doubt is None else f"{doubt.what}: {_CAUSES_OF_TRAINED}"


def check_float_accuracy(config: RunConfig, doubt: Doubt) -> None:
    """Refuse to quantize given weights if their accuracy cannot be right.

    A network that the run itself trains first (--float-epochs, --plain) is not refused.

    Raises:
        FloatAccuracyError: The accuracy is refused; one line with the flag that accepts it.
    """
    if doubt.is_sure and not config.float_epochs and not config.network.accept_float_accuracy:
        raise FloatAccuracyError(f"{warning_of_given(doubt)} (--accept-float-accuracy continues anyway)")
