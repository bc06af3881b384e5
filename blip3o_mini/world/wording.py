"""A sentence as strangers type it: other frames and words, fillers, telegram style, slips of the finger.

The meaning stays the same. Only training uses this: evaluation asks in the plain wording of `questions` and
`language`, and in the real strangers' words of data/own_words.json, which are kept out of training here.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path

import numpy as np

from .language import COLOUR_WORDS, NUMBERS, RELATION_WORDS, SHAPE_WORDS, SIZE_WORDS, pick

_NAME = r"([\w ]+?)"
_RELATION = "(" + "|".join(words for options in RELATION_WORDS.values() for words in options) + ")"
# Plain questions and other ways to put them; {0}, {1}, … are what the brackets caught.
_FRAMES = tuple((re.compile(pattern), options) for pattern, options in (
    (r"(?:what|which) colou?r (?:is|does) the (\w+)(?: have)?\?", (
        "the {0}'s color?", "what is the color of the {0}?", "the {0} has which color?", "say the color of the {0}",
        "give the {0}'s colour", "how is the {0} colored?", "color of {0}", "in what colour is the {0} painted?",
        "the {0}, of what color is it?", "what's the colour of the {0}?", "do you know the color of the {0}?")),
    (r"(?:what|which) shape is (?:the )?(\w+)(?: object)?\?", (
        "what is the {0} thing?", "what is {0} here?", "the {0} object has what shape?", "which object is {0}?",
        "say the shape of the {0} object", "what {0} shape do you see?", "the shape of the {0} one?")),
    (rf"(?:how big|what size) is the {_NAME}\?", (
        "is the {0} large or small?", "is the {0} small or large?", "the {0} has what size?", "the {0}'s size?",
        "how large or small is the {0}?", "is the {0} a large one or a small one?", "what is the size of the {0}?",
        "is the {0} big or little?", "give the size of the {0}")),
    (rf"(?:where|in which place) (?:is|do you see) the {_NAME}\?", (
        "at which place is the {0}?", "what is the position of the {0}?", "at what place does the {0} stand?",
        "find the {0}", "where can the {0} be seen?", "where does the {0} stand?", "the {0}'s place?",
        "where did the {0} go?", "which place has the {0}?", "the {0} stands where?", "where's the {0}?")),
    (rf"(?:is there|can you see|does the picture show|do you see) (an? {_NAME})\?", (
        "{0}, yes or no?", "is {0} in the image?", "does {0} show up?", "are you able to see {0}?", "{0} there?",
        "is it true that there is {0}?", "there is {0}, right?", "has the picture got {0}?", "is {0} here?",
        "does it have {0}?", "did they paint {0}?")),
    (rf"how many {_NAME} (?:are there|do you see)\?", (
        "what number of {0} is there?", "how many {0}?", "how many {0} can be seen?", "please count {0}",
        "count the {0}", "give the number of {0}", "how many {0} does the picture have?", "how many are {0}?")),
    (rf"is the {_NAME} {_RELATION} the {_NAME}\?", (
        "does the {0} sit {1} the {2}?", "the {0} is {1} the {2}, right?", "the {0} {1} the {2}, yes or no?",
        "is it true that the {0} is {1} the {2}?", "can the {0} be found {1} the {2}?", "{0} {1} {2}?")),
    (rf"are the {_NAME} and the {_NAME} the same size\?", (
        "do the {0} and the {1} share one size?", "is the {0} as big as the {1}?", "{0} and {1}, of equal size?",
        "are the {0} and the {1} equally big?", "is the size of the {0} that of the {1}?")),
    (rf"(?:what|which object) (?:is|do you see) at the {_NAME}\?", (
        "what stands at the {0}?", "the {0} shows what?", "what is there at the {0}?", "at the {0} is what?",
        "what can be seen in the {0}?", "which thing is at the {0}?", "say what is at the {0}")),
))  # fmt: skip
# Words for words; every option means the same to a checker.
_WORDS = (
    (r" and ", (" & ", " plus ", ", ", " as well as ", " together with ", " and also ", " along with ")),
    (r"\b(two|three|four)\b", {word: (str(k),) for k, word in enumerate(NUMBERS)}),
    (r"\bbackground\b", ("backdrop", "ground", "wall", "paper")),
    (r"\bto the left of\b", ("on the left of", "left from", "further left than")),
    (r"\bto the right of\b", ("on the right of", "right from", "further right than")),
    (r"\b(?:above|on top of)\b", ("higher than", "up over", "atop", "further up than")),
    (r"\b(?:below|under)\b", ("underneath", "lower than", "down under", "further down than")),
    (r"\btop (left|right)\b", ("upper {0}", "{0} top", "top {0} corner")),
    (r"\bbottom (left|right)\b", ("lower {0}", "{0} bottom", "bottom {0} corner")),
    (r"\b(?:at|in) the center\b", ("in the centre", "right in the middle", "at the very center")),
    (r"\ba large\b", ("a giant", "one large", "a really big")),
    (r"\ba small\b", ("a mini", "one small", "a really small")),
    (r"\b(?:objects|shapes)\b", ("things", "items", "figures")),
    (r"\bpicture\b", ("image", "drawing", "scene")),
    (r"\b(?:please|can you)\b", ("kindly", "pls", "will you")),
)  # fmt: skip
_WORDS = tuple((re.compile(pattern), options) for pattern, options in _WORDS)
_BEFORE = (
    "hi, ", "hello! ", "ok, ", "well, ", "so, ", "hey, ", "good morning. ", "please: ", "quick one: ", "and now, ",
    "i was asked for this: ", "one more wish. ", "my friend asks: ", "it is for school. ", "sorry, ", "just ",
    "look. ", "for a book: ", "this time ", "if possible, ",
)  # fmt: skip
_AFTER = (
    " thanks", ", thank you", " for me", " now", ", will you?", "!", ".", "...", " :)", ", that is all", ", ok?",
    " if you can", ". i like that", " today", ", nothing else", " here", ", and quickly", " of course",
)  # fmt: skip
_LITTLE = re.compile(r"\b(?:a|an|the|there|of|me|(?:is|are)(?! the \w+ (?:large|small) or))\s+")
_KNOWN = {
    part
    for table in (SIZE_WORDS, SHAPE_WORDS, COLOUR_WORDS, RELATION_WORDS)
    for word, options in table.items()
    for part in " ".join((word, *options)).split()
}


OWN_WORDS = Path(__file__).resolve().parents[2] / "data" / "own_words.json"


def loosely(text: str, rng: np.random.Generator, *, slips: float = 0.12) -> str:
    """The sentence in a stranger's wording; a share of `slips` get a typing error."""
    loose = _loosely(text, rng, slips)
    return text if bare(loose) in _kept_apart() else loose


def bare(text: str) -> str:
    """Lower case, letters and digits only: sentences that differ in nothing else count as the same."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


@lru_cache(maxsize=1)
def _kept_apart() -> frozenset[str]:
    """What strangers typed, which evaluation will ask; nothing to keep apart where the data folder is not there."""
    told = json.loads(OWN_WORDS.read_text(encoding="utf-8")) if OWN_WORDS.exists() else {}
    asked = [one["prompt"] for one in told.get("prompts", ())] + [one["question"] for one in told.get("questions", ())]
    return frozenset(map(bare, asked))


def _loosely(text: str, rng: np.random.Generator, slips: float) -> str:
    text = _reframed(text, rng) if rng.random() < 0.6 else text
    for pattern, options in _WORDS:
        if rng.random() < 0.2:
            text = _replaced(text, pattern, options, rng)
    if rng.random() < 0.15:
        text = _LITTLE.sub("", text)
    if rng.random() < 0.2:
        text = pick(rng, _BEFORE) + text
    if rng.random() < 0.2:
        text = text.rstrip("?.! ") + pick(rng, _AFTER)
    elif rng.random() < 0.2:
        text = text.rstrip("?.! ")
    return _slip(text, rng) if rng.random() < slips else text


def _reframed(text: str, rng: np.random.Generator) -> str:
    for pattern, options in _FRAMES:
        if found := pattern.fullmatch(text):
            return pick(rng, options).format(*found.groups())
    return text


def _replaced(text: str, pattern: re.Pattern, options: tuple | dict, rng: np.random.Generator) -> str:
    """The first place that fits, in other words."""
    if not (found := pattern.search(text)):
        return text
    words = pick(rng, options if isinstance(options, tuple) else options[found[0]])
    return text[: found.start()] + words.format(*found.groups()) + text[found.end() :]


def _slip(text: str, rng: np.random.Generator) -> str:
    """One word gets a letter too many, too few, or two swapped; no word turns into another one of the world."""
    words = text.split(" ")
    long = [k for k, word in enumerate(words) if len(word) > 3 and word.isalpha()]
    if not long:
        return text
    k = pick(rng, long)
    word, i = words[k], int(rng.integers(1, len(words[k]) - 1))
    slipped = pick(rng, (
        word[:i] + word[i] + word[i:], word[:i] + word[i + 1 :], word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    ))  # fmt: skip
    words[k] = word if slipped in _KNOWN else slipped
    return " ".join(words)


__all__ = ["loosely"]
