"""Configuration of a run: frozen dataclasses, checked on construction, with an exact JSON form."""

from inq_ray.training.config.cluster import ClusterConfig
from inq_ray.training.config.data import DataConfig
from inq_ray.training.config.network import NetworkConfig
from inq_ray.training.config.output import OutputConfig
from inq_ray.training.config.quantization import QuantizationConfig
from inq_ray.training.config.run import RunConfig, field_type, field_value
from inq_ray.training.config.training import LrSchedule, TrainingConfig

__all__ = [
    "ClusterConfig",
    "DataConfig",
    "LrSchedule",
    "NetworkConfig",
    "OutputConfig",
    "QuantizationConfig",
    "RunConfig",
    "TrainingConfig",
    "field_type",
    "field_value",
]
