"""What a single layer costs. Costs of a network are the sum of its layers' costs.

linear      parameters a·b (+ b)       operations 2·rows·a·b       (a multiplication and an addition count as 2)
convolution parameters k²·a·b + b      operations 2·cells·k²·a·b
attention   no parameters              operations 4·queries·keys·width   (scores, then their sum of values)
Norms, activations and sums are left out of the operations: together they stay below one percent.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Parameters, and for one forward pass of one sample: operations, values made, and the largest tensor."""

    parameters: int = 0
    flops: int = 0
    values: int = 0  # what training has to keep for the way back
    largest: int = 0  # values in the largest tensor; sets the peak when nothing is kept

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.parameters + other.parameters, self.flops + other.flops, self.values + other.values,
            max(self.largest, other.largest),
        )  # fmt: skip

    def __mul__(self, times: int) -> Cost:
        """`times` such layers, one after the other."""
        return Cost(self.parameters * times, self.flops * times, self.values * times, self.largest)

    __rmul__ = __mul__

    def shared(self) -> Cost:
        """The same work with weights that are counted elsewhere."""
        return Cost(0, self.flops, self.values, self.largest)


def total(*costs: Cost) -> Cost:
    return sum(costs, Cost())


def weights(count: int) -> Cost:
    """Parameters that cost nearly no operations: embeddings, positions, norms."""
    return Cost(parameters=count)


def linear(wide_in: int, wide_out: int, rows: int, *, has_bias: bool = True) -> Cost:
    made = rows * wide_out
    return Cost(wide_in * wide_out + has_bias * wide_out, 2 * made * wide_in, made, made)


def convolution(channels_in: int, channels_out: int, cells: int, *, kernel: int = 3, has_bias: bool = True) -> Cost:
    """A square convolution that makes `cells` cells."""
    made, reads = cells * channels_out, kernel**2 * channels_in
    return Cost(reads * channels_out + has_bias * channels_out, 2 * made * reads, made, made)


def attention(queries: int, keys: int, width: int) -> Cost:
    """Scores and sums over all heads together; the score matrix itself is never stored as a whole."""
    return Cost(flops=4 * queries * keys * width, values=queries * width, largest=queries * width)


def layer_norm(width: int, rows: int) -> Cost:
    """Scale and shift: layer and group norms."""
    return Cost(parameters=2 * width, values=rows * width, largest=rows * width)


def rms_norm(width: int, rows: int) -> Cost:
    """Scale only."""
    return Cost(parameters=width, values=rows * width, largest=rows * width)
