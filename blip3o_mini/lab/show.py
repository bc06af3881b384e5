"""Pictures in a notebook: small static figures with titles and alternative text.

Everything is emitted as a finished PNG, so that it looks the same in Jupyter, on GitHub and in print,
and no `<Figure size …>` line appears below it.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#1b2137"


def show(
    images: Sequence, titles: Sequence[str] | None = None, *, columns: int | None = None, size: float = 1.7,
    alt: str | None = None, colours: int | None = 256,
) -> None:  # fmt: skip
    """Show pictures (PIL or uint8 arrays) side by side, `size` inches each, with titles below.

    `alt` is the text for readers who cannot see the picture; without it, the titles are read out. `colours`: see
    `png_of`.
    """
    figure = figure_of(images, titles, columns=columns, size=size)
    emit(figure, alt or alternative(titles, len(images)), colours=colours)


def figure_of(
    images: Sequence, titles: Sequence[str] | None = None, *, columns: int | None = None, size: float = 1.7
) -> Figure:
    """The figure that `show` emits."""
    from matplotlib.figure import Figure

    if len(images) == 0:
        raise ValueError("there is nothing to show: the list of images is empty")
    if titles is not None and len(titles) != len(images):
        raise ValueError(f"{len(titles)} titles do not fit {len(images)} images; give one title per image")
    columns = columns or min(len(images), 6)
    rows = -(-len(images) // columns)
    lines = [wrapped(title, int(size * 11)) for title in titles] if titles else []
    below = 0.17 * max((text.count("\n") + 1 for text in lines), default=0) + 0.06
    figure = Figure(figsize=(columns * size, rows * (size + below)), dpi=110, layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)  # footgun: .flat can be walked only once
    for axes in grid:
        axes.axis("off")
    for index, (axes, image) in enumerate(zip(grid, images)):
        axes.imshow(np.asarray(image), interpolation="lanczos")
        if lines:
            axes.set_title(lines[index], y=-0.04, pad=0, va="top", fontsize=8, color=INK, family="DejaVu Sans")
    return figure


def wrapped(text: str, width: int) -> str:
    """Break a title into lines of at most `width` letters."""
    import textwrap

    return "\n".join(textwrap.wrap(text, width)) or " "


def alternative(titles: Sequence[str] | None, count: int) -> str:
    """Alternative text: how many pictures, and their titles."""
    noun = "picture" if count == 1 else "pictures"
    return f"{count} {noun}: {'; '.join(titles)}" if titles else f"{count} {noun}"


def png_of(figure: Figure, colours: int | None = None) -> bytes:
    """A figure as PNG without date or version in it, so that the same figure gives the same bytes.

    Plots have few colours: a palette makes their files a third of the size. Figures with pictures keep all colours
    unless `colours` says how many are enough.
    """
    from PIL import Image

    buffer, small = BytesIO(), BytesIO()
    # footgun: axes of equal aspect settle in the second draw only; in the first, titles can be cut off
    figure.draw_without_rendering()
    figure.savefig(buffer, format="png", facecolor="white", metadata={"Software": None})
    has_pictures = any(axes.images for axes in figure.axes)
    if colours is None and has_pictures:
        return buffer.getvalue()
    drawn = Image.open(buffer).convert("RGB")
    if has_pictures:
        # footgun: without k-means after the first choice, small objects take the colour of larger ones
        drawn = drawn.quantize(colours, Image.Quantize.MAXCOVERAGE, kmeans=4, dither=Image.Dither.NONE)
    else:
        drawn = drawn.quantize(colours or 64)
    drawn.save(small, format="png", optimize=True)
    return small.getvalue()


def emit(figure: Figure, alt: str, *, colours: int | None = None) -> None:
    """Put a figure below the cell, with alternative text; `colours` as in `png_of`."""
    from IPython.display import Image, display

    display(Image(data=png_of(figure, colours), alt=alt))
