"""What others have published for ResNet-20 on CIFAR-10, top-1 in percent."""

from typing import NamedTuple


class Published(NamedTuple):
    """A method's figures.

    Attributes:
        method: its name, and what makes it another task than ours.
        float_top1: of the float network that it began from.
        top1: by bits of a weight.
    """

    method: str
    float_top1: float
    top1: dict[int, float]

    def change(self, bits: int) -> str:
        """Against its own float network, in points, with the two figures; empty where there is none."""
        if bits not in self.top1:
            return ""
        return f"{self.top1[bits] - self.float_top1:+.2f} ({self.float_top1:.2f} → {self.top1[bits]:.2f})"


NETWORK, DATA = "cifar_resnet20", "cifar10"
PUBLISHED = (
    Published("DeepShift-Q, powers of two", 91.79, {5: 89.85}),
    Published("APoT, sums of powers of two, activations quantized too", 92.96, {4: 92.45, 3: 92.49, 2: 90.96}),
    Published("a weight-only method (its name is not kept)", 92.08, {4: 92.19, 3: 92.18, 2: 91.12}),
)
