"""One page that shows a model at work: all five tasks with their pictures, questions and answers.

Drawn with Pillow alone and its built-in font, so that `blip3o-mini start` needs no plotting library.
The font knows Latin letters only; arrows are drawn as shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

WIDTH, MARGIN, GAP, PAD = 1560, 40, 26, 28
PAGE, CARD, EDGE = "#eef1f7", "#ffffff", "#d9deea"
INK, MUTED, FAINT = "#1b2137", "#5d6780", "#eef1f7"
# Okabe and Ito's palette: also distinct for colour-blind readers.
BLUE, ORANGE, GREEN, PURPLE, SKY = "#0072b2", "#d55e00", "#00835f", "#a3548a", "#2f86c0"


@dataclass
class Story:
    """What the page tells: filled by the start job, read by `draw_poster`."""

    title: str
    subtitle: str
    drawn: list[tuple[str, Image.Image, str]] = field(default_factory=list)  # prompt, picture, remark
    edited: list[tuple[Image.Image, str, Image.Image]] = field(default_factory=list)  # before, words, after
    seen: list[tuple[Image.Image, list[tuple[str, str]]]] = field(default_factory=list)  # picture, Q/A
    labels: dict[str, float] = field(default_factory=dict)  # of the first picture seen
    told: list[tuple[str, str]] = field(default_factory=list)  # question, answer
    dialogue: list[tuple[str, str | Image.Image]] = field(default_factory=list)  # user's words, reply


@lru_cache(maxsize=32)
def font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def wrap(text: str, size: int, width: float) -> list[str]:
    """Break text into lines that fit a width in pixels."""
    lines, line = [], ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and font(size).getlength(longer) > width:
            lines.append(line)
            line = word
        else:
            line = longer
    return [*lines, line]


class Page:
    """A tall canvas with a pen; cut to the height that was used."""

    def __init__(self, height: int = 4000):
        self.image = Image.new("RGB", (WIDTH, height), PAGE)
        self.pen = ImageDraw.Draw(self.image)

    def write(
        self, x: float, y: float, text: str, size: int = 20, *, colour: str = INK, width: float = 9999,
        is_bold: bool = False, is_centred: bool = False,
    ) -> float:  # fmt: skip
        """Write wrapped text; return the y below it."""
        for line in wrap(text, size, width):
            left = x + (width - font(size).getlength(line)) / 2 if is_centred else x
            stroke = size / 60 if is_bold else 0  # the built-in font has no bold face
            self.pen.text((left, y), line, font=font(size), fill=colour, stroke_width=stroke)
            y += size * 1.32
        return y

    def card(self, x: float, y: float, width: float, height: float, title: str, colour: str) -> None:
        """A white card with a coloured title. "a > b" in the title becomes a drawn arrow."""
        self.pen.rounded_rectangle((x, y, x + width, y + height), 18, CARD, EDGE, 2)
        self.pen.rounded_rectangle((x + PAD, y + 26, x + PAD + 6, y + 52), 3, colour)
        left = x + PAD + 20
        for index, part in enumerate(title.split(" > ")):
            if index:
                self.arrow(left + 6, y + 40, 26, colour)
                left += 44
            self.write(left, y + 24, part, 24, colour=colour, is_bold=True)
            left += font(24).getlength(part) + 6

    def arrow(self, x: float, y: float, length: float, colour: str = MUTED) -> None:
        self.pen.line((x, y, x + length - 8, y), colour, 4)
        self.pen.polygon(((x + length, y), (x + length - 12, y - 8), (x + length - 12, y + 8)), colour)

    def picture(self, image: Image.Image, x: float, y: float, size: int) -> None:
        """A picture with rounded corners."""
        tile = image.convert("RGB").resize((size, size), Image.Resampling.LANCZOS)
        mask = Image.new("L", (4 * size, 4 * size))
        ImageDraw.Draw(mask).rounded_rectangle((0, 0, 4 * size - 1, 4 * size - 1), 48, 255)
        self.image.paste(tile, (int(x), int(y)), mask.resize((size, size)))
        self.pen.rounded_rectangle((int(x), int(y), int(x) + size - 1, int(y) + size - 1), 12, None, EDGE, 1)

    def bubble(self, x, y, width, height, text: str, colour: str, ink: str) -> None:
        """A speech bubble with its text in the middle."""
        self.pen.rounded_rectangle((x, y, x + width, y + height), 14, colour)
        top = y + (height - _tallest([text], 19, width - 28)) / 2
        self.write(x + 14, top + 1, text, 19, colour=ink, width=width - 28, is_centred=True)


def draw_poster(story: Story) -> Image.Image:
    """Lay the story out as one page, top to bottom."""
    page = Page()
    page.write(MARGIN, 34, story.title, 44, is_bold=True)
    y = page.write(MARGIN, 92, story.subtitle, 21, colour=MUTED, width=WIDTH - 2 * MARGIN) + 16
    for section in (_drawn, _edited, _read, _dialogue):
        y = section(page, story, y) + GAP
    return page.image.crop((0, 0, WIDTH, int(y + MARGIN - GAP)))


def _columns(count: int, width: float = WIDTH - 2 * MARGIN - 2 * PAD) -> list[float]:
    """Left edges of equally wide columns inside a full card."""
    return [MARGIN + PAD + k * width / count for k in range(count)]


def _tallest(texts: Sequence[str], size: int, width: float) -> float:
    return max((len(wrap(text, size, width)) for text in texts), default=0) * size * 1.32


def _drawn(page: Page, story: Story, y: float) -> float:
    if not story.drawn:
        return y - GAP
    lefts, tile = _columns(len(story.drawn)), 240
    column = (WIDTH - 2 * MARGIN - 2 * PAD) / len(lefts)
    words = _tallest([prompt for prompt, _, _ in story.drawn], 20, column - 24)
    height = 76 + tile + 16 + words + 24 * any(remark for _, _, remark in story.drawn) + PAD
    page.card(MARGIN, y, WIDTH - 2 * MARGIN, height, "text > image", BLUE)
    for left, (prompt, image, remark) in zip(lefts, story.drawn):
        page.picture(image, left + (column - tile) / 2, y + 76, tile)
        below = page.write(left + 12, y + 92 + tile, prompt, 20, width=column - 24, is_centred=True)
        page.write(left, below + 2, remark, 16, colour=BLUE, width=column, is_centred=True)
    return y + height


def _edited(page: Page, story: Story, y: float) -> float:
    if not story.edited:
        return y - GAP
    lefts, tile, between = _columns(len(story.edited)), 196, 48
    column = (WIDTH - 2 * MARGIN - 2 * PAD) / len(lefts)
    words = _tallest([text for _, text, _ in story.edited], 20, column - 24)
    height = 76 + tile + 14 + words + PAD
    page.card(MARGIN, y, WIDTH - 2 * MARGIN, height, "image > image", ORANGE)
    for left, (before, text, after) in zip(lefts, story.edited):
        start = left + (column - 2 * tile - between) / 2
        page.picture(before, start, y + 76, tile)
        page.arrow(start + tile + 8, y + 76 + tile / 2, between - 16, ORANGE)
        page.picture(after, start + tile + between, y + 76, tile)
        page.write(left + 12, y + 90 + tile, text, 20, width=column - 24, is_centred=True)
    return y + height


def _answers(page: Page, pairs: Sequence[tuple[str, str]], x: float, y: float, width: float) -> float:
    """Questions in grey, each with its answer below."""
    for question, answer in pairs:
        y = page.write(x, y, question, 18, colour=MUTED, width=width)
        y = page.write(x, y, answer, 20, width=width) + 11
    return y


def _read(page: Page, story: Story, y: float) -> float:
    """Side by side: answers about pictures, answers from text alone."""
    if not story.seen and not story.told:
        return y - GAP
    left_width = round((WIDTH - 2 * MARGIN - GAP) * 0.68)
    right = MARGIN + left_width + GAP
    # Draw once on a scratch page to learn the height, then the cards, then the words on top.
    scratch = Page()
    bottom = max(_seen(scratch, story, y, left_width), _told(scratch, story, right, y))
    page.card(MARGIN, y, left_width, bottom - y + PAD, "image > text", GREEN)
    page.card(right, y, WIDTH - MARGIN - right, bottom - y + PAD, "text > text", PURPLE)
    _seen(page, story, y, left_width)
    _told(page, story, right, y)
    return bottom + PAD


def _told(page: Page, story: Story, x: float, y: float) -> float:
    return _answers(page, story.told, x + PAD, y + 76, WIDTH - MARGIN - x - 2 * PAD)


def _seen(page: Page, story: Story, y: float, width: float) -> float:
    column, tile, bottom = (width - PAD) / max(1, len(story.seen)), 180, y + 76 + 180
    for index, (image, pairs) in enumerate(story.seen):
        left = MARGIN + PAD + index * column
        page.picture(image, left, y + 76, tile)
        end = _answers(page, pairs, left + tile + 20, y + 74, column - tile - 20 - PAD)
        if index == 0:
            end = max(end, _bars(page, story.labels, left, y + 76 + tile + 18, tile))
        bottom = max(bottom, end)
    return bottom


def _bars(page: Page, labels: dict[str, float], x: float, y: float, width: float) -> float:
    """Probabilities of labels as bars, the likeliest first."""
    for name, share in sorted(labels.items(), key=lambda pair: -pair[1])[:4]:
        page.write(x, y, name, 16)
        page.write(x + width - font(16).getlength("100%"), y, f"{100 * share:.0f}%", 16, colour=MUTED)
        page.pen.rounded_rectangle((x, y + 24, x + width, y + 32), 4, FAINT)
        if share * width >= 4:
            page.pen.rounded_rectangle((x, y + 24, x + share * width, y + 32), 4, GREEN)
        y += 44
    return y


def _dialogue(page: Page, story: Story, y: float) -> float:
    """Turns from left to right: the user's words above, the model's reply below."""
    if not story.dialogue:
        return y - GAP
    lefts, tile = _columns(len(story.dialogue)), 200
    column = (WIDTH - 2 * MARGIN - 2 * PAD) / len(lefts)
    wide = column - 26
    top = _tallest([text for text, _ in story.dialogue], 19, wide - 28) + 20
    height = 76 + top + 16 + tile + PAD
    page.card(MARGIN, y, WIDTH - 2 * MARGIN, height, "dialogue", SKY)
    for index, (left, (text, reply)) in enumerate(zip(lefts, story.dialogue)):
        page.bubble(left, y + 76, wide, top, text, FAINT, INK)
        below = y + 76 + top + 16
        if isinstance(reply, Image.Image):
            page.picture(reply, left + (wide - tile) / 2, below, tile)
        else:
            height_of_reply = _tallest([reply], 19, wide - 28) + 20
            page.bubble(left, below, wide, height_of_reply, reply, SKY, "#ffffff")
        if index:
            page.arrow(left - 23, y + 76 + top / 2, 20)
    return y + height
