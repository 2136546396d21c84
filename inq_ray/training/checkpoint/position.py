"""Where in a run a checkpoint was taken, and the name that it gets from that."""

import re
from dataclasses import dataclass

_NAME = re.compile(r"checkpoint-(\d{2,9})-(\d{4,9})-(\d{8,15})")


@dataclass(frozen=True, kw_only=True, order=True)
class TrainingPosition:
    """A point between two optimizer steps; later ones are greater.

    A stage's two ends are (stage, 0, 0), just after its weights were quantized, and (stage, its epochs, 0).

    Attributes:
        stage: 0 while the network is still float, else from 1.
        epoch: whole epochs done in this stage.
        step: global batches done in the epoch after these.
    """

    stage: int
    epoch: int
    step: int

    def __post_init__(self) -> None:
        for value in (self.stage, self.epoch, self.step):
            assert type(value) is int, self
            assert value >= 0, self

    @property
    def name(self) -> str:
        """Name of a checkpoint taken here, such as checkpoint-02-0003-00000120; names sort as positions do."""
        return f"checkpoint-{self.stage:02}-{self.epoch:04}-{self.step:08}"

    @classmethod
    def parse(cls, name: str) -> "TrainingPosition | None":
        """The position of a name; None where it is no checkpoint's name."""
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        stage, epoch, step = map(int, match.groups())
        position = cls(stage=stage, epoch=epoch, step=step)
        return position if position.name == name else None
