"""The suite `probes`: what each part of the model knows, so that a failure is looked for where it begins.

Every scene is told in full and shown, and asked for five times on its way through the model:

    features    picture → features                          read by a linear probe
    decoder     picture → features → picture                read by the detector: the decoder's ceiling
    condition   prompt → condition at the queries           read by a linear probe
    dit         prompt → condition → features               read by the probe of the features
    whole       prompt → condition → features → picture     read by the detector: what a user gets

The first part whose scores fall is the one to mend. Held-out scenes hold a (shape, colour) pair that neither
the model nor a probe was ever fitted on, and objects are judged there on those pairs alone. Lesson 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .. import world
from ..world.parse import read
from ..world.scene import COLOURS, HELDOUT_PAIRS, SHAPES, Scene, heldout_reasons, sample_scene
from .probing import ASPECTS, Board, CellProbe, board_of
from .score import Marks
from .trial import Tick, batches, draw, draw_scene, noise, pictures_of, readings_of_chance, shows

FIT_SCENES = 3000  # seen scenes that the probes are fitted on
_IS_HELDOUT = np.array([[(shape, colour) in HELDOUT_PAIRS for colour in COLOURS] for shape in SHAPES])


def probe_scenes(n: int, rng: np.random.Generator, *, is_heldout: bool) -> list[Scene]:
    """n scenes of one to four objects in turn; held-out ones hold a pair that training never shows."""
    scenes: list[Scene] = []
    while len(scenes) < n:
        scene = draw_scene(rng, is_heldout, count=1 + len(scenes) % 4)
        if not is_heldout or "pair" in heldout_reasons(scene):
            scenes.append(scene)
    return scenes


def run_probes(model, n: int, rng: np.random.Generator, is_heldout: bool, seed: int, tick: Tick) -> Marks:
    """Every part on the same scenes. Overall: whole pictures that show exactly the scene. Baseline: a random one."""
    scenes = probe_scenes(n, rng, is_heldout=is_heldout)
    fitted_on = [sample_scene(rng, count=1 + k % 4) for k in range(FIT_SCENES)]
    prompts, fit_prompts = ([world.long_caption(scene, rng) for scene in some] for some in (scenes, fitted_on))
    feature_probe = CellProbe(features_of(model, fitted_on), fitted_on)
    condition_probe = CellProbe(conditions_of(model, fit_prompts), fitted_on)
    boards = {"features": feature_probe.read(features_of(model, scenes), has_offset=True)}
    boards["decoder"] = decoded(model, scenes, seed)
    boards["condition"] = condition_probe.read(conditions_of(model, prompts))
    boards["dit"] = feature_probe.read(drawn_features(model, prompts, seed))
    boards["whole"] = drawn(model, prompts, seed, tick)
    truth, categories = board_of(scenes), {}
    for part, board in boards.items():
        for aspect, marks in judge(truth, board, is_heldout=is_heldout).items():
            categories[f"{part}: {aspect}"] = marks
    chance = [shows(reading, scene) for reading in readings_of_chance(rng) for scene in scenes]
    return Marks(categories, np.mean(chance), overall=categories["whole: exact"])


def judge(truth: Board, told: Board, *, is_heldout: bool) -> dict[str, list[float]]:
    """Marks by aspect: objects at their true place, then whole scenes, then scenes by number of objects.

    Guessing names one shape in 6, one colour in 8 and one size in 2; "layout" is which of the nine cells are
    taken. "offset" is R², 1 − error² / variance: 0 for a probe that always says the middle of the cell.
    """
    asked = truth.is_there & (_IS_HELDOUT[truth.shape, truth.colour] if is_heldout else True)
    right = {name: getattr(told, name) == getattr(truth, name) for name in ASPECTS}
    is_object = np.logical_and.reduce([told.is_there, *right.values()])
    same_layout = (told.is_there == truth.is_there).all(1)
    same_background = told.background == truth.background
    exact = (is_object | ~truth.is_there).all(1) & same_layout & same_background & told.is_clean
    marks = {name: right[name][asked] for name in ASPECTS} | {"object": is_object[asked]}
    marks |= {"layout": same_layout, "background": same_background, "exact": exact}
    numbers = truth.is_there.sum(1)
    marks |= {f"{k} objects" if k > 1 else "1 object": exact[numbers == k] for k in np.unique(numbers)}
    if told.offset is not None:
        error = ((told.offset - truth.offset) ** 2).sum(-1)[asked]
        variance = (truth.offset**2).sum(-1)[asked].mean()  # offsets are drawn evenly around 0
        marks["offset"] = 1 - error / max(variance, 1e-9)
    return {name: [float(value) for value in values] for name, values in marks.items()}


def features_of(model, scenes: Sequence[Scene]) -> np.ndarray:
    """Features (n, Q, D) of the pictures of scenes."""
    return _joined(model.encode_images(pictures_of(some)) for some in batches(scenes, 128))


def conditions_of(model, prompts: Sequence[str]) -> np.ndarray:
    """Conditions (n, Q, H) of prompts, as `generate` words them."""
    return _joined(_condition(model, some) for some in batches(prompts, 128))


def drawn_features(model, prompts: Sequence[str], seed: int) -> np.ndarray:
    """The features (n, Q, D) that `generate` would decode."""
    shape = (model.config.vision.num_features, model.config.dit.feature_width)
    options = {"steps": model.config.steps, "guidance_scale": model.config.guidance_scale}
    found, done = [], 0
    for some in batches(prompts):
        condition = _condition(model, some)
        start = model.noise(shape, noise(done, len(some), seed), condition)
        found.append(model.sample(condition, start, **options))
        done += len(some)
    return _joined(found)


def _condition(model, prompts: Sequence[str]):
    """Condition (B, Q, H) of a batch."""
    import torch

    template = model.config.backbone.generation_prompt
    asked = [[{"role": "user", "content": template.format(caption=text)}] for text in prompts]
    with torch.no_grad():
        return model.backbone.condition(*model.rows(asked, is_drawing=True))


def _joined(parts) -> np.ndarray:
    return np.concatenate([part.float().cpu().numpy() for part in parts])


def decoded(model, scenes: Sequence[Scene], seed: int) -> Board:
    """What the detector reads off pictures that were decoded from real features."""
    pictures = []
    for some in batches(scenes):
        pictures += model.reconstruct(pictures_of(some), seed=seed + len(pictures))
    return board_of([read(picture) for picture in pictures])


def drawn(model, prompts: Sequence[str], seed: int, tick: Tick) -> Board:
    """What the detector reads off pictures that were drawn from prompts; these leave the offset open."""
    return replace(board_of([read(picture) for picture in draw(model, prompts, seed, tick)]), offset=None)
