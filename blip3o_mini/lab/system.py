"""The one drawing of the whole system; every lesson shows it with its own part in colour.

Text (and perhaps a picture, through vision) enters the backbone. It answers in words, or its states
at the learnable queries become the condition, on which the DiT turns noise into features step by
step; the decoder turns features into pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .. import world

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, LINE, PALE = "#1b2137", "#5d6780", "#8a93a8", "#eef1f6"
FADED = "#c9cfdb"


@dataclass(frozen=True)
class Part:
    """A box of the drawing; position and size in units of a hundredth of the width."""

    x: float
    y: float
    width: float
    height: float
    colour: str
    title: str
    subtitle: str
    lesson: str


# Okabe and Ito's palette. The words in the boxes carry the meaning, colour only supports it.
PARTS = {
    "vision": Part(19.5, 3.6, 13, 8.2, "#009e73", "vision", "pixels → features", "01"),
    "backbone": Part(17, 18.4, 24, 14.6, "#0072b2", "backbone", "reads · answers · conditions", "02"),
    "flow": Part(50, 30.6, 21, 12.4, "#2f86c0", "flow", "from noise to features, step by step", "03"),
    "dit": Part(53, 18.6, 15, 8.2, "#d55e00", "dit", "which way to go?", "04"),
    "decoder": Part(75.3, 18.6, 11.4, 8.2, "#a3548a", "decoder", "features → pixels", "05"),
}
QUERIES = "#e69f00"
HIGHLIGHTS = (*PARTS, "condition", "queries")
CAPTION = (
    "The system: text and pictures enter the backbone; it answers in words, or its states at the queries "
    "condition the DiT, which turns noise into features; the decoder turns features into a picture."
)


def draw_system(highlight: str | None = None) -> Figure:
    """Draw the system; with `highlight`, only that part keeps its colour.

    Parts: vision, backbone, queries (or condition), flow, dit, decoder.
    """
    from matplotlib.figure import Figure

    if highlight is not None and highlight not in HIGHLIGHTS:
        raise ValueError(f"the drawing has no part {highlight!r}; choose one of {', '.join(HIGHLIGHTS)}")
    figure = Figure(figsize=(10.4, 4.6), dpi=110)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 101), ylim=(0, 44.7))
    axes.axis("off")
    artist = _Artist(axes, highlight)
    for name in PARTS:
        artist.part(name)
    _inputs(artist)
    _tokens(artist)
    _middle(artist)
    _flow(artist)
    _output(artist)
    return figure


def show_system(highlight: str | None = None) -> None:
    """Put the drawing below a notebook cell."""
    from .show import emit

    alt = CAPTION + (f" Highlighted: {highlight}." if highlight else "")
    emit(draw_system(highlight), alt, colours=256)  # it is in every lesson, and looks the same at a third of the size


class _Artist:
    """Draws boxes, arrows and grids, and knows what is faded."""

    def __init__(self, axes: Axes, highlight: str | None):
        self.axes = axes
        self.highlight = "queries" if highlight == "condition" else highlight

    def tint(self, name: str, colour: str) -> str:
        return colour if self.highlight in (None, name) else FADED

    def is_faded(self, name: str) -> bool:
        return self.highlight not in (None, name)

    def box(self, x, y, width, height, *, face, edge, line=1.4, radius=1.3, zorder=2) -> None:
        from matplotlib.patches import FancyBboxPatch

        style = f"round,pad=0,rounding_size={radius}"
        self.axes.add_patch(
            FancyBboxPatch((x, y), width, height, boxstyle=style, fc=face, ec=edge, lw=line, zorder=zorder)
        )

    def text(self, x, y, words, size=8.5, *, colour=INK, align="center", **font) -> None:
        look = {"family": "DejaVu Sans", "size": size, "color": colour, "ha": align, "va": "center", **font}
        self.axes.text(x, y, words, zorder=6, **look)

    def part(self, name: str) -> None:
        part, is_faded = PARTS[name], self.is_faded(name)
        is_chosen = self.highlight == name
        colour = self.tint(name, part.colour)
        face = PALE if is_faded else _mix(part.colour, 0.22 if is_chosen else 0.12)
        line = 2.8 if is_chosen else 1.5
        self.box(part.x, part.y, part.width, part.height, face=face, edge=colour, line=line)
        ink, middle = MUTED if is_faded else INK, part.x + part.width / 2
        self.text(middle, part.y + part.height - 3.0, part.title, 12, colour=ink, weight="bold")
        self.text(middle, part.y + part.height - 5.7, part.subtitle, 7.6, colour=MUTED)
        # The number of the lesson that builds this part, on a little badge over the corner.
        left, top = part.x + 0.9, part.y + part.height
        badge, digits = ("white", MUTED) if is_faded else (colour, "white")
        self.box(left, top - 1.2, 3.2, 2.4, face=badge, edge=colour, radius=1.1, line=1.2, zorder=4)
        self.text(left + 1.6, top - 0.05, part.lesson, 7.4, colour=digits, weight="bold")

    def arrow(self, start, end, *, colour=LINE, bend=0.0, style="-", width=1.6) -> None:
        from matplotlib.patches import FancyArrowPatch

        self.axes.add_patch(
            FancyArrowPatch(
                start, end, arrowstyle="-|>", mutation_scale=12, lw=width, color=colour, linestyle=style,
                connectionstyle=f"arc3,rad={bend}", shrinkA=0, shrinkB=0, zorder=3,
            )
        )  # fmt: skip

    def grid(self, x, y, side, colours, *, gap=0.25) -> None:
        """A square of coloured cells, `colours` (rows, columns, 3) in 0…1."""
        from matplotlib.patches import Rectangle

        rows = len(colours)
        cell = side / rows
        for row in range(rows):
            for column in range(rows):
                place = (x + column * cell + gap / 2, y + (rows - 1 - row) * cell + gap / 2)
                self.axes.add_patch(
                    Rectangle(place, cell - gap, cell - gap, fc=colours[row][column], ec="none", zorder=4)
                )

    def picture(self, image: np.ndarray, x, y, side) -> None:
        from matplotlib.patches import FancyBboxPatch

        extent = (x, x + side, y, y + side)
        shown = self.axes.imshow(image, extent=extent, interpolation="lanczos", zorder=3, aspect="auto")
        frame = FancyBboxPatch(
            (x, y), side, side, boxstyle="round,pad=0,rounding_size=0.9", fc="none", ec=LINE, lw=1, zorder=5
        )
        self.axes.add_patch(frame)
        shown.set_clip_path(frame)


def _mix(colour: str, share: float) -> tuple[float, float, float]:
    """A tint: `share` of the colour, the rest white."""
    rgb = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    return tuple(1 - share * (1 - rgb))


def _scene(colour: str) -> np.ndarray:
    """The example picture, drawn by the little world."""
    objects = (world.Object("circle", colour, "large", 1, 0), world.Object("square", "blue", "large", 1, 2))
    return world.render([world.Scene(objects, "cream")], size=216)[0]


def _feature_colours() -> np.ndarray:
    """Nine cells in the colours of the example: what the features stand for."""
    cells = np.full((3, 3, 3), (0.93, 0.86, 0.71))
    cells[0] += 0.03
    cells[1, 0], cells[1, 2] = (0.87, 0.18, 0.19), (0.18, 0.41, 0.88)
    return cells


def _inputs(artist: _Artist) -> None:
    artist.box(1, 21.5, 11.6, 8.4, face="white", edge=LINE, line=1.1)
    for line, words in enumerate(("“a red circle", "to the left of", "a blue square”")):
        artist.text(6.8, 28 - 2.3 * line, words, 7.8)
    artist.text(6.8, 31.3, "text", 8.2, colour=MUTED, style="italic")
    artist.arrow((13, 25.7), (16.6, 25.7))
    artist.picture(_scene("green"), 2.2, 3, 9.2)
    artist.text(6.8, 1.4, "image, if there is one", 8.2, colour=MUTED, style="italic")
    artist.arrow((12, 7.7), (19.1, 7.7))
    artist.arrow((26, 12.2), (26, 18))
    artist.text(27, 15.1, "features", 8.2, colour=MUTED, style="italic", align="left")
    # The answer leaves at the top: text → text and image → text end here.
    artist.arrow((26, 33.4), (26, 38))
    artist.box(19, 38.4, 14, 4.6, face="white", edge=LINE, line=1.1)
    artist.text(26, 40.6, "“two objects”", 8.2)
    artist.text(33.9, 40.6, "answer", 8.2, colour=MUTED, style="italic", align="left")


def _tokens(artist: _Artist) -> None:
    """The sequence inside the backbone: words, then the learnable queries."""
    left, step = 18.4, 2.13
    word = _mix("#0072b2", 0.45) if not artist.is_faded("backbone") else FADED
    query = QUERIES if not artist.is_faded("queries") or artist.highlight == "backbone" else FADED
    for index in range(10):
        face = query if index >= 6 else word
        artist.box(left + index * step, 21.7, 1.7, 2.4, face=face, edge="none", radius=0.4, zorder=4)
    artist.text(left + 3 * step - 0.2, 20.2, "words", 7, colour=MUTED)
    ink, weight = (INK, "bold") if artist.highlight == "queries" else (MUTED, "normal")
    artist.text(left + 8 * step - 0.2, 20.2, "queries", 7, colour=ink, weight=weight)


def _middle(artist: _Artist) -> None:
    """Backbone → condition → DiT, and the features of a source picture on their way to the DiT."""
    query, is_chosen = artist.tint("queries", QUERIES), artist.highlight == "queries"
    artist.arrow((41.4, 22.9), (52.6, 22.9), colour=query, width=2.0)
    for index in range(4):
        artist.box(43.5 + 1.85 * index, 24.1, 1.45, 2.4, face=query, edge="none", radius=0.4, zorder=4)
    ink, weight = (INK, "bold") if is_chosen else (MUTED, "normal")
    artist.text(47, 28, "condition", 8.2, colour=ink, style="italic", weight=weight)
    artist.axes.plot((32.9, 60.5), (7.7, 7.7), color=LINE, lw=1.4, ls=(0, (4, 3)), zorder=1)
    artist.arrow((60.5, 7.7), (60.5, 18.2), style=(0, (4, 3)), width=1.4)
    artist.text(47, 9.2, "for edits: the features of the image", 7.8, colour=MUTED, style="italic")


def _flow(artist: _Artist) -> None:
    """The walk from noise to features inside the flow's box, and its questions to the DiT."""
    line = artist.tint("flow", "#2f86c0")
    artist.arrow((58.6, 27.2), (58.6, 30.3), colour=line, width=1.8)
    artist.arrow((65.2, 30.3), (65.2, 27.2), colour=line, width=1.8)
    artist.text(59.4, 28.8, "velocity", 7.6, colour=MUTED, style="italic", align="left")
    artist.text(66, 28.8, "noisy features", 7.6, colour=MUTED, style="italic", align="left")
    noise, clean = np.random.default_rng(4).uniform(0.15, 0.95, (3, 3, 3)), _feature_colours()
    for index, sigma in enumerate((1.0, 0.6, 0.25, 0.0)):
        cells = (1 - sigma) * clean + sigma * noise
        if artist.is_faded("flow"):
            cells = np.repeat(cells.mean(-1, keepdims=True) * 0.3 + 0.6, 3, -1)
        artist.grid(51.6 + 4.93 * index, 31.8, 3.4, np.clip(cells, 0, 1), gap=0.16)
        if index:
            artist.arrow((50.2 + 4.93 * index, 33.5), (51.5 + 4.93 * index, 33.5), colour=line, width=1.1)
    artist.text(49.4, 33.5, "noise", 8.2, colour=MUTED, style="italic", align="right")


def _output(artist: _Artist) -> None:
    """Flow → features → decoder → picture."""
    artist.arrow((71.4, 36.8), (77.5, 36.8))
    artist.grid(78.2, 34, 5.6, _feature_colours(), gap=0.22)
    artist.text(81, 41, "features", 8.2, colour=MUTED, style="italic")
    artist.arrow((81, 33.4), (81, 27.3))
    artist.arrow((87.1, 22.7), (89.9, 22.7))
    artist.picture(_scene("red"), 90.4, 17.9, 9.6)
    artist.text(95.2, 16.3, "image", 8.2, colour=MUTED, style="italic")
