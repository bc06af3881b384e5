"""Axes for the lessons' figures: one look, labels required, colours that colour-blind readers can tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#8a93a8"
INK = "#1b2137"


def panels(
    titles: Sequence[str], x: str, y: str, *, columns: int | None = None, size: tuple[float, float] = (2.3, 2.1),
    share: bool = True,
) -> tuple[Figure, list[Axes]]:  # fmt: skip
    """A figure with one small titled panel per title, its axes labelled x and y; show it with `lab.show.emit`."""
    from matplotlib.figure import Figure

    columns = columns or len(titles)
    rows = -(-len(titles) // columns)
    figure = Figure(figsize=(columns * size[0], rows * size[1]), dpi=110, layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share).flat)
    for axes in grid[len(titles) :]:
        axes.axis("off")
    for axes, title in zip(grid, titles):
        axes.set_title(title, fontsize=9, color=INK)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    for k, axes in enumerate(grid[: len(titles)]):
        if k % columns == 0 or not share:
            axes.set_ylabel(y, fontsize=8)
        if k + columns >= len(titles) or not share:
            axes.set_xlabel(x, fontsize=8)
    return figure, grid[: len(titles)]
