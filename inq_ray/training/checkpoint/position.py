"""Position in a run at which a checkpoint was taken, and the checkpoint's name."""

import re
from dataclasses import dataclass
from typing import Any

_NAME = re.compile(r"checkpoint-(\d{2,9})-(\d{4,9})-(\d{8,15})")


@dataclass(frozen=True, kw_only=True, order=True)
class TrainingPosition:
    """A point between two optimizer steps; later ones are greater.

    A stage's two ends are (stage, 0, 0), just after its weights were quantized, and (stage, its epochs, 0).

    Attributes:
        stage: 0 during float training, else from 1.
        epoch: Complete epochs in this stage.
        step: Global batches in the epoch after these.
    """

    stage: int
    epoch: int
    step: int

    def __post_init__(self) -> None:
        assert all(type(each) is int and each >= 0 for each in (self.stage, self.epoch, self.step)), self

    @property
    def name(self) -> str:
        """Name of a checkpoint taken here, such as checkpoint-02-0003-00000120; names sort as positions do."""
        return f"checkpoint-{self.stage:02}-{self.epoch:04}-{self.step:08}"

    @classmethod
    def parse(cls, name: str) -> "TrainingPosition | None":
        """Return the position of a checkpoint's name; None if it is not such a name."""
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        stage, epoch, step = map(int, match.groups())
        position = cls(stage=stage, epoch=epoch, step=step)
        return position if position.name == name else None

    @classmethod
    def from_json(cls, values: Any) -> "TrainingPosition":
        """Read a position from JSON, where its key is "place".

        Raises:
            ValueError: It is not a position, or too large for a name.
        """
        is_right = isinstance(values, dict) and values.keys() == {"stage", "epoch", "step"}
        if not (is_right and all(type(each) is int and each >= 0 for each in values.values())):
            raise ValueError(f"place is {values!r:.80}, not counts of stage, epoch and step")
        position = cls(**values)
        if cls.parse(position.name) != position:
            raise ValueError(f"place is {values!r:.80}, too large for a name")
        return position
