"""Scenes → words: captions with varied wording, riddles, and a reader that takes a caption apart again.

With `rng=None` every function gives its one canonical wording (what the model is taught to answer);
with a generator it varies the wording, as people do (what the model is taught to understand).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .scene import BACKGROUNDS, CELLS, COLOURS, MOST_OBJECTS, POSITIONS, SHAPES, SIZES, Object, Scene, relation

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SIZE_WORDS = {"small": ("small", "little", "tiny"), "large": ("large", "big", "huge")}
# Other words for the same thing, used now and then, so that a stranger's wording is understood.
SHAPE_WORDS = {
    "circle": ("disc", "dot", "ball"), "square": ("box", "block"), "triangle": ("pyramid",),
    "star": ("five-pointed star",), "heart": ("love heart",), "cross": ("plus", "plus sign"),
}  # fmt: skip
COLOUR_WORDS = {
    "red": ("scarlet",), "orange": ("bright orange",), "yellow": ("golden",), "green": ("emerald",),
    "blue": ("azure",), "purple": ("violet",), "pink": ("rosy",), "brown": ("chestnut",),
}  # fmt: skip
RELATION_WORDS = {
    "left": ("to the left of", "left of", "on the left side of"),
    "right": ("to the right of", "right of", "on the right side of"),
    "above": ("above", "over", "on top of"),
    "below": ("below", "under", "beneath"),
}
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
PLACE_WORDS = {
    name: (f"in the {name}", f"in the {name} corner", f"at the {name}", f"in the {other}")
    for name in POSITIONS
    if " " in name
    for other in [name.replace("top", "upper").replace("bottom", "lower")]
} | {
    "center": ("in the center", "in the middle", "at the center"),
    "left": ("on the left", "at the left", "on the left side"),
    "right": ("on the right", "at the right", "on the right side"),
    "top": ("at the top", "on the top", "at the top"),
    "bottom": ("at the bottom", "on the bottom", "at the bottom"),
}
SHAPE_RIDDLES = {
    "circle": ("the shape without corners", "the shape of a wheel", "the shape of a coin"),
    "square": ("the shape with four equal sides", "the shape of a chessboard", "the shape of a box"),
    "triangle": ("the shape with three corners", "the shape of a pyramid", "the shape with three sides"),
    "star": ("the shape with five points", "the shape that shines at night", "the shape on a sheriff's badge"),
    "heart": ("the shape of love", "the shape on a valentine card", "the symbol of love"),
    "cross": ("the shape of a plus sign", "the shape on an ambulance", "the sign for adding"),
}
COLOUR_RIDDLES = {
    "red": ("blood", "a ripe tomato", "a fire truck"), "orange": ("a carrot", "a pumpkin", "a basketball"),
    "yellow": ("a banana", "a lemon", "the sun"), "green": ("grass", "a frog", "spinach"),
    "blue": ("the sea", "a clear sky", "blueberries"), "purple": ("grapes", "lavender", "an eggplant"),
    "pink": ("a flamingo", "bubble gum", "a piglet"), "brown": ("chocolate", "coffee", "wood"),
}  # fmt: skip


def pick(rng: np.random.Generator | None, options):
    """The first option without a generator, any of them with one."""
    return options[0] if rng is None else options[rng.integers(len(options))]


def chance(rng: np.random.Generator | None, probability: float) -> bool:
    return rng is not None and rng.random() < probability


def with_article(phrase: str) -> str:
    return f"an {phrase}" if phrase[0] in "aeiou" else f"a {phrase}"


def join(parts: list[str]) -> str:
    """ "a, b and c"."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


@dataclass(frozen=True)
class Detail:
    """What a caption tells about every object (and the background)."""

    size: bool = True
    colour: bool = True
    place: bool = True
    background: bool = True

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Detail:
        size, colour, place, background = rng.random(4) < (0.35, 0.7, 0.35, 0.25)
        return cls(bool(size), bool(colour), bool(place), bool(background))


def noun(o: Object, detail: Detail, rng=None, plural: bool = False) -> str:
    """ "large red star", with as much as `detail` tells; riddles are not used here."""
    shape = pick(rng, SHAPE_WORDS[o.shape]) if chance(rng, 0.08) else o.shape
    colour = pick(rng, COLOUR_WORDS[o.colour]) if chance(rng, 0.08) else o.colour
    words = [pick(rng, SIZE_WORDS[o.size])] if detail.size else []
    shape += ("es" if shape[-1] in "sx" else "s") if plural else ""
    if detail.colour and chance(rng, 0.06):
        return " ".join([*words, shape, pick(rng, ("in", "colored", "that are" if plural else "that is")), colour])
    return " ".join([*words, colour, shape] if detail.colour else [*words, shape])


def place(o: Object, rng=None) -> str:
    return pick(rng, PLACE_WORDS[o.position])


def ending(scene: Scene, rng=None) -> str:
    return pick(rng, (" on a {} background", " with a {} background", " against a {} background")).format(
        scene.background
    )


def long_caption(scene: Scene, rng: np.random.Generator | None = None) -> str:
    """Everything: size, colour, shape and place of every object, and the background."""
    return describe(scene, Detail(), rng)


def describe(scene: Scene, detail: Detail, rng: np.random.Generator | None = None) -> str:
    """Name every object one by one, each with the details asked for."""
    objects = list(scene.objects)
    if rng is not None:
        rng.shuffle(objects)
    parts = [with_article(noun(o, detail, rng)) + (f" {place(o, rng)}" if detail.place else "") for o in objects]
    return join(parts) + (ending(scene, rng) if detail.background else "")


def group(scene: Scene, detail: Detail, rng: np.random.Generator | None = None) -> str:
    """Count equal objects: "three red hearts and a blue star"."""
    seen: dict[str, list[Object]] = {}
    for o in scene.objects:
        seen.setdefault(noun(o, detail), []).append(o)
    parts = []
    for members in seen.values():
        words = noun(members[0], detail, rng, plural=len(members) > 1)
        parts.append(f"{NUMBERS[len(members)]} {words}" if len(members) > 1 else with_article(words))
    if rng is not None:
        rng.shuffle(parts)
    return join(parts) + (ending(scene, rng) if detail.background else "")


def relate(a: Object, b: Object, detail: Detail, rng: np.random.Generator | None = None) -> str | None:
    """ "a red circle to the left of a blue square", or None where no relation holds."""
    kinds = sorted(relation(a, b))
    if not kinds:
        return None
    words = pick(rng, RELATION_WORDS[pick(rng, kinds)])
    first, second = noun(a, detail, rng), noun(b, detail, rng)
    if chance(rng, 0.15):
        return f"{with_article(second)} with {with_article(first)} {words} it"
    link = pick(rng, ("that is ", "standing ", "placed ")) if chance(rng, 0.15) else ""
    return f"{with_article(first)} {link}{words} {'the ' + second if chance(rng, 0.2) else with_article(second)}"


def riddle(o: Object, rng: np.random.Generator | None = None) -> str:
    """ "the shape with three corners in the color of grass"; at times only one of the two is a riddle."""
    kind = 2 if rng is None else rng.integers(3)
    shape = with_article(o.shape) if kind == 0 else pick(rng, SHAPE_RIDDLES[o.shape])
    of = f"the {pick(rng, ('color', 'colour'))} of {pick(rng, COLOUR_RIDDLES[o.colour])}"
    return f"{shape} in {o.colour if kind == 1 else of}"


def short_caption(scene: Scene, rng: np.random.Generator | None = None) -> str:
    """A caption as a person would type it: some details, counts or relations, varied wording."""
    detail = Detail.draw(rng) if rng is not None else Detail(size=False, place=False, background=False)
    bare = Detail(detail.size, detail.colour, False, False)
    tail = ending(scene, rng) if detail.background else ""
    if len(scene.objects) == 1 and chance(rng, 0.2):
        return riddle(scene.objects[0], rng) + tail
    if len({o.shape for o in scene.objects}) < len(scene.objects) and chance(rng, 0.5):  # something to count
        is_one_colour = len({o.colour for o in scene.objects}) == 1
        return group(scene, Detail(False, is_one_colour and chance(rng, 0.6), False, detail.background), rng)
    if len(scene.objects) == 2 and chance(rng, 0.6):
        a, b = scene.objects if chance(rng, 0.5) else scene.objects[::-1]
        if text := relate(a, b, bare, rng):
            return text + tail
    counts = Counter(noun(o, bare) for o in scene.objects)
    if rng is None or not detail.place or (max(counts.values()) > 1 and chance(rng, 0.5)):
        return group(scene, Detail(detail.size, detail.colour, False, detail.background), rng)
    return describe(scene, detail, rng)


DRAW_REQUESTS = (
    "draw {}", "please draw {}", "draw me {}", "paint {}", "make a picture of {}", "create an image of {}",
    "can you draw {}?", "i want to see {}", "a picture of {}", "{}", "show me {}", "generate {}", "an image of {}",
    "put {} in a picture please", "i would like to see {} please", "give me {}", "could you make {} for me?",
    "render {}", "sketch {}", "a drawing of {}", "a picture with {}", "there is {}", "put {}", "{} please", "i need {}",
    "let me see a picture that shows {}", "make {} please", "place {}",
)  # fmt: skip
CAPTION_REQUESTS = {
    "short": ("describe the picture briefly.", "write a short caption.", "what does the picture show?"),
    "long": ("describe the picture in detail.", "write a long caption.", "describe everything in the picture."),
}


def draw_request(caption: str, rng: np.random.Generator | None = None) -> str:
    """A request for a picture; the canonical wording is the generation prompt of the small presets."""
    return pick(rng, DRAW_REQUESTS).format(caption)


_NUMBER = {"a": 1, "an": 1, **{word: k for k, word in enumerate(NUMBERS)}}
_SIZE = {word: size for size, words in SIZE_WORDS.items() for word in words}
_SHAPE = {word: shape for shape, words in SHAPE_WORDS.items() for word in (shape, *words)}
_COLOUR = {word: colour for colour, words in COLOUR_WORDS.items() for word in (colour, *words)}
_PLACE = {words: name for name, options in PLACE_WORDS.items() for words in options}


def object_words(caption: str, scene: Scene) -> np.ndarray:
    """Which of CELL_WORDS a caption says of the object it names first, second, … : (MOST_OBJECTS, words).

    All zeros when the caption's objects cannot be told one by one.
    """
    named = described_objects(re.sub(r"\bthe ", "a ", caption.lower()))
    if not named and caption and len(scene.objects) == 1:  # a riddle gives shape and colour away
        named = [(None, o.colour, o.shape, None) for o in scene.objects]
    return _words_in_order([o[:3] for o in named] if len(named) == len(scene.objects) else [])


def new_object_words(before: Scene, after: Scene) -> np.ndarray:
    """The same of what an edit brings in or changes (MOST_OBJECTS, words): all zeros when it only takes away."""
    return _words_in_order([(o.size, o.colour, o.shape) for o in after.objects if o not in before.objects])


def _words_in_order(named: list[tuple]) -> np.ndarray:
    place = {word: k for k, word in enumerate(CELL_WORDS)}
    found = np.zeros((MOST_OBJECTS, len(CELL_WORDS)), np.uint8)
    for row, words in zip(found, named):
        row[[place[word] for word in words if word]] = 1
    return found


def told_words(caption: str) -> np.ndarray:
    """Which of CELL_WORDS a caption decides, 0 or 1 (words,): no colours when it names none, and so on."""
    text = caption.lower()

    def names(words) -> bool:
        return re.search(rf"\b({_any(words)})\b", text) is not None

    has_colour = names((*_COLOUR, "color of", "colour of"))
    decided = (True, has_colour, names(_SIZE), "background" in text)
    kinds = (SHAPES, COLOURS, SIZES, BACKGROUNDS)
    return np.concatenate([np.full(len(kind), is_told, np.uint8) for kind, is_told in zip(kinds, decided)])


def _any(words) -> str:
    return "|".join(sorted(words, key=len, reverse=True))


_PATTERN = re.compile(
    rf"\b({_any(_NUMBER)})(?: ({_any(_SIZE)}))?(?: ({_any(_COLOUR)}))? ({_any(_SHAPE)})(?:e?s)?\b"
    rf"(?: (?:in|colored|that is|that are) ({_any(_COLOUR)}))?(?: ({_any(_PLACE)}))?"
)


def described_objects(text: str) -> list[tuple[str | None, str | None, str, str | None]]:
    """Read a caption back: one (size, colour, shape, position) per object, None where nothing is said."""
    found = []
    for number, size, before, shape, behind, where in _PATTERN.findall(text.lower()):
        colour = _COLOUR.get(before or behind)
        found += [(_SIZE.get(size), colour, _SHAPE[shape], _PLACE.get(where))] * _NUMBER[number]
    return found


def described_background(text: str) -> str | None:
    """The background a caption names, or None."""
    match = re.search(rf"\b({'|'.join(BACKGROUNDS)}) background", text.lower())
    return match.group(1) if match else None


CELL_WORDS = (*SHAPES, *COLOURS, *SIZES, *BACKGROUNDS)


def cell_words(scenes: Sequence[Scene]) -> np.ndarray:
    """Which of CELL_WORDS describe each cell: 0 or 1 (scenes, cells, words)."""
    place = {word: k for k, word in enumerate(CELL_WORDS)}
    found = np.zeros((len(scenes), CELLS, len(CELL_WORDS)), np.uint8)
    for cells, scene in zip(found, scenes):
        cells[:, place[scene.background]] = 1
        for o in scene.objects:
            cells[o.cell, [place[o.shape], place[o.colour], place[o.size]]] = 1
    return found


__all__ = [
    "CAPTION_REQUESTS", "CELL_WORDS", "COLOUR_RIDDLES", "DRAW_REQUESTS", "NUMBERS", "SHAPE_RIDDLES", "SIZES", "Detail",
    "cell_words", "describe", "described_background", "described_objects", "draw_request", "long_caption",
    "new_object_words", "object_words", "riddle", "short_caption", "told_words",
]  # fmt: skip
