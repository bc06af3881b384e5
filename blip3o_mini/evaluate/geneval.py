"""GenEval in the little world: six kinds of prompts, one detector, all or nothing.

A prompt's metadata has the fields of the public benchmark:

    {"tag", "include": [{"class", "count", "color"?, "position"?: ["left of", 0]}], "exclude"?: [...], "prompt"}

and may tell two things that the public ones do not, "size" and "places" of what is included, and "background".
A picture passes if every asserted fact holds. Seen prompts assert no held-out combination and held-out ones
assert at least one; that needs a colour, so held-out single- and two-object prompts name one. Lesson 10.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..world.language import NUMBERS, RELATION_WORDS, pick, with_article
from ..world.parse import Reading, read
from ..world.scene import (
    COLOURS,
    HELDOUT_COUNTS,
    HELDOUT_PAIRS,
    HELDOUT_RELATIONS,
    MOST_OBJECTS,
    SHAPES,
    Object,
    relation,
)

TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
RELATIONS = {"left of": "left", "right of": "right", "above": "above", "below": "below"}


def prompts(n: int, rng: np.random.Generator, *, is_heldout: bool) -> list[dict]:
    """Metadata of n prompts, the six tags in turn."""
    return [_prompt(TAGS[k % len(TAGS)], rng, is_heldout) for k in range(n)]


def _prompt(tag: str, rng: np.random.Generator, is_heldout: bool) -> dict:
    while True:
        include = _include(tag, rng, is_heldout)
        if asserts_heldout(include) == is_heldout:
            break
    metadata = {"tag": tag, "include": include}
    if tag == "counting":
        wanted = include[0]
        metadata["exclude"] = [{"class": wanted["class"], "count": wanted["count"] + 1}]
    return {**metadata, "prompt": wording(include, rng)}


def _include(tag: str, rng: np.random.Generator, is_heldout: bool) -> list[dict]:
    first, last = (SHAPES[k] for k in rng.permutation(len(SHAPES))[:2])
    warm, cold = (COLOURS[k] for k in rng.permutation(len(COLOURS))[:2])
    is_coloured = {"single_object": is_heldout, "two_object": is_heldout, "colors": True, "color_attr": True}
    has_colour = is_coloured.get(tag, bool(rng.random() < 0.5))
    a = {"class": first, "count": 1} | ({"color": warm} if has_colour else {})
    b = {"class": last, "count": 1} | ({"color": cold} if has_colour and tag != "two_object" else {})
    if tag == "counting":
        return [{**a, "count": int(rng.integers(2, MOST_OBJECTS + 1))}]
    if tag == "position":  # include[1] stands in this relation to include[0]
        name = pick(rng, tuple(RELATIONS))
        if is_heldout and rng.random() < 0.5:  # else nearly all of them would be held out for a colour
            a["class"], name, b["class"] = pick(rng, _heldout_relations())
        return [a, {**b, "position": [name, 0]}]
    return [a, b] if tag in ("two_object", "color_attr") else [a]


def _heldout_relations() -> list[tuple[str, str, str]]:
    """Every wording (target, relation, shape) of the held-out relations."""
    words = {"left": ("left of", "right of"), "above": ("above", "below")}
    both = []
    for first, kind, last in sorted(HELDOUT_RELATIONS):
        there, back = words[kind]
        both += [(last, there, first), (first, back, last)]
    return both


def asserts_heldout(include: Sequence[dict]) -> bool:
    """True when the facts name a held-out (shape, colour), (count, shape) or relation."""
    for wanted in include:
        shape = wanted["class"]
        if (shape, wanted.get("color")) in HELDOUT_PAIRS or (wanted["count"], shape) in HELDOUT_COUNTS:
            return True
        if "position" in wanted:
            name, target = wanted["position"]
            other = include[target]["class"]
            ordered = (shape, other) if name in ("left of", "above") else (other, shape)
            kind = "left" if name in ("left of", "right of") else "above"
            if (ordered[0], kind, ordered[1]) in HELDOUT_RELATIONS:
                return True
    return False


def wording(include: Sequence[dict], rng: np.random.Generator) -> str:
    """The prompt in plain English."""
    names = []
    for wanted in include:
        words = " ".join(filter(None, (wanted.get("color"), wanted["class"])))
        plural = words + ("es" if wanted["class"] == "cross" else "s")
        names.append(with_article(words) if wanted["count"] == 1 else f"{NUMBERS[wanted['count']]} {plural}")
    if "position" in include[-1]:
        words = pick(rng, RELATION_WORDS[RELATIONS[include[-1]["position"][0]]])
        return f"{names[1]} {words} {names[0]}"
    return " and ".join(names)


def failures(metadata: dict, reading: Reading) -> list[str]:
    """Every asserted fact that does not hold, as a sentence; an empty list is a pass."""
    found, fitting = [], []
    for wanted in metadata["include"]:
        shape, colour, count = wanted["class"], wanted.get("color"), wanted["count"]
        same = [o for o in reading.objects if o.shape == shape]
        coloured = [o for o in same if colour in (None, o.colour)]
        fitting.append([o for o in coloured if _fits(wanted, o)])
        if len(same) < count:
            found.append(f"expected {shape}>={count}, found {len(same)}")
        elif len(coloured) < count:
            colours = ", ".join(o.colour for o in same)
            found.append(f"expected {colour} {shape}>={count}, found {colours}")
        elif len(fitting[-1]) < count:
            others = ", ".join(f"{o.size} {o.position}" for o in coloured)
            places = " or ".join(wanted.get("places", ()))
            found.append(f"expected {wanted.get('size', '')} {shape} {places}>={count}, found {others}")
        if "position" in wanted and not found:
            name, target = wanted["position"]
            if not any(RELATIONS[name] in relation(a, b) for a in fitting[-1] for b in fitting[target]):
                found.append(f"expected {shape} {name} {metadata['include'][target]['class']}")
    for unwanted in metadata.get("exclude", ()):
        number = sum(o.shape == unwanted["class"] for o in reading.objects)
        if number >= unwanted["count"]:
            found.append(f"expected {unwanted['class']}<{unwanted['count']}, found {number}")
        elif reading.unreadable:  # it may be one more
            found.append(f"{reading.unreadable} patches cannot be read, so nothing is counted")
    if metadata.get("background", reading.background) != reading.background:
        found.append(f"expected a {metadata['background']} background, found {reading.background}")
    return found


def _fits(wanted: dict, o: Object) -> bool:
    """True when an object has the size, and stands in one of the places, that a prompt asks for."""
    return wanted.get("size", o.size) == o.size and o.position in wanted.get("places", (o.position,))


def write_results(folder: str | Path, metadata: Iterable[dict], images: Iterable[Sequence[Image.Image]]) -> None:
    """Write the public layout: 00000/metadata.jsonl and 00000/samples/0000.png … per prompt."""
    for k, (facts, pictures) in enumerate(zip(metadata, images, strict=True)):
        place = Path(folder) / f"{k:05d}"
        (place / "samples").mkdir(parents=True, exist_ok=True)
        (place / "metadata.jsonl").write_text(json.dumps(facts) + "\n", encoding="utf-8")
        for i, picture in enumerate(pictures):
            picture.save(place / "samples" / f"{i:04d}.png")


def score_results(folder: str | Path) -> list[dict]:
    """Judge a folder of the public layout: one row per picture, with the fields of the public result file.

    Raises FileNotFoundError when no prompt folder is there, ValueError when one is damaged.
    """
    places = sorted(path.parent for path in Path(folder).glob("*/metadata.jsonl"))
    if not places:
        raise FileNotFoundError(f"{folder} holds no folder such as 00000/metadata.jsonl with samples beside it")
    rows = []
    for place in places:
        metadata = _read_metadata(place / "metadata.jsonl")
        for picture in sorted((place / "samples").glob("*.png")):
            wrong = failures(metadata, read(Image.open(picture)))
            facts = {"filename": str(picture), "tag": metadata["tag"], "prompt": metadata["prompt"]}
            rows.append({**facts, "correct": not wrong, "reason": "\n".join(wrong)})
    return rows


def _read_metadata(path: Path) -> dict:
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
        for wanted in metadata["include"]:
            if wanted["class"] not in SHAPES or wanted["count"] < 1:
                raise ValueError(f"{wanted} asks for nothing that this world has")
        return {"exclude": [], **metadata, "tag": metadata["tag"], "prompt": metadata["prompt"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} does not hold GenEval metadata of this world: {error!r}") from error
