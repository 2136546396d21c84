"""Where results are kept below the root of a checkout: the one place that knows the names."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Places:
    """Files of results.

    Attributes:
        root: of the checkout.
    """

    root: Path

    @property
    def runs(self) -> Path:
        """Folder of the records of final runs, measured on the test set."""
        return self.root / "docs" / "results" / "runs"

    @property
    def choices(self) -> Path:
        """Folder of the records of runs by which something was chosen, measured on held-out training images."""
        return self.root / "docs" / "results" / "choices"

    @property
    def weights(self) -> Path:
        """Folder of the final weights of some runs, packed."""
        return self.root / "docs" / "results" / "weights"

    @property
    def page(self) -> Path:
        """All results."""
        return self.root / "docs" / "results" / "README.md"

    @property
    def picture(self) -> Path:
        """Accuracy over stages."""
        return self.root / "docs" / "images" / "results.png"

    @property
    def readme(self) -> Path:
        """The README, which has the tables between two marks."""
        return self.root / "README.md"
