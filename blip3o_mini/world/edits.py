"""Edits: an instruction, the scene before and the scene after; everything else stays untouched.

Also short dialogues, as chat messages that mix drawing, asking and editing.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from .language import (
    Detail,
    draw_request,
    noun,
    pick,
    place,
    short_caption,
    with_article,
)
from .questions import questions, unique_name
from .scene import BACKGROUNDS, CELLS, COLOURS, MOST_OBJECTS, SHAPES, Object, Scene, is_heldout, make_object, make_scene

POLITE = ("please {}", "{} please", "can you {}?", "now {}")
EDIT_KINDS = ("recolour", "replace", "add", "remove", "move", "background")
_SAID = Detail(size=True, colour=True, place=False, background=False)


def _swap(scene: Scene, old: Object, new: Object | None) -> Scene:
    objects = [o for o in scene.objects if o is not old] + ([new] if new else [])
    return make_scene(objects, scene.background)


def _free_cell(scene: Scene, rng: np.random.Generator) -> int:
    taken = {o.cell for o in scene.objects}
    return int(pick(rng, [cell for cell in range(CELLS) if cell not in taken]))


def _recolour(scene, o, name, rng):
    colour = pick(rng, [c for c in COLOURS if c != o.colour])
    words = pick(rng, ("make the {} {}", "change the color of the {} to {}", "paint the {} {}", "turn the {} {}"))
    return words.format(name, colour), _swap(scene, o, dataclasses.replace(o, colour=colour))


def _replace(scene, o, name, rng):
    shape = pick(rng, [s for s in SHAPES if s != o.shape])
    words = pick(rng, ("turn the {} into {}", "replace the {} with {}", "change the {} to {}"))
    new = dataclasses.replace(o, shape=shape)
    said = Detail(size=False, colour=bool(rng.random() < 0.5), place=False, background=False)
    return words.format(name, with_article(noun(new, said))), _swap(scene, o, new)


def _remove(scene, o, name, rng):
    words = pick(rng, ("remove the {}", "delete the {}", "take away the {}", "erase the {}"))
    return words.format(name), _swap(scene, o, None)


def _move(scene, o, name, rng):
    cell = _free_cell(scene, rng)
    new = dataclasses.replace(o, row=cell // 3, column=cell % 3)
    words = pick(rng, ("move the {} to the {}", "put the {} at the {}", "shift the {} to the {}"))
    return words.format(name, new.position), _swap(scene, o, new)


def _add(scene, rng):
    new = make_object(rng, _free_cell(scene, rng))
    words = pick(rng, ("add {} {}", "put {} {}", "draw {} {}", "place {} {}"))
    return words.format(with_article(noun(new, _SAID, rng)), place(new, rng)), _swap(scene, new, new)


def _background(scene, rng):
    name = pick(rng, [b for b in BACKGROUNDS if b != scene.background])
    words = pick(rng, ("make the background {}", "change the background to {}", "use a {} background"))
    return words.format(name), Scene(scene.objects, name)


def edit(
    scene: Scene, rng: np.random.Generator, *, kind: str | None = None, allow_heldout: bool = False
) -> tuple[str, Scene, str]:
    """Draw (instruction, new scene, kind); an impossible kind gives way to another one."""
    on_object = {"recolour": _recolour, "replace": _replace, "remove": _remove, "move": _move}
    for attempt in range(200):
        kind = kind if attempt < 100 else None
        chosen = kind or pick(rng, EDIT_KINDS)
        if chosen == "background":
            instruction, after = _background(scene, rng)
        elif chosen == "add":
            if len(scene.objects) >= MOST_OBJECTS:
                kind = None
                continue
            instruction, after = _add(scene, rng)
        else:
            o = pick(rng, scene.objects)
            name = unique_name(o, scene, rng)
            if name is None or (chosen == "remove" and len(scene.objects) == 1):
                kind = None if rng.random() < 0.2 else kind
                continue
            instruction, after = on_object[chosen](scene, o, name, rng)
        if allow_heldout or not is_heldout(after):
            polite = pick(rng, POLITE) if rng.random() < 0.2 else "{}"
            return polite.format(instruction), after, chosen
    raise ValueError(f"no edit of kind {kind!r} fits the scene {scene}")


def dialogue(scene: Scene, rng: np.random.Generator) -> list[dict]:
    """A conversation: draw, ask about it, edit it, ask again. Image turns carry the scene itself."""
    messages = [
        {"role": "user", "content": draw_request(short_caption(scene, rng), rng)},
        {"role": "assistant", "content": scene},
    ]
    for question, answer, _ in questions(scene, rng)[:2]:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    instruction, after, _ = edit(scene, rng)
    messages += [{"role": "user", "content": instruction}, {"role": "assistant", "content": after}]
    for question, answer, _ in questions(after, rng)[:1]:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return messages


__all__ = ["EDIT_KINDS", "dialogue", "edit"]
