"""The gallery shows what the suites judge: their prompts, their noise, their verdicts; nothing is chosen."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blip3o_mini import evaluate as ev
from blip3o_mini import world
from blip3o_mini.evaluate import geneval, pictured, trial

PATH = Path(__file__).resolve().parent.parent / "benchmarks" / "gallery.py"
SPEC = importlib.util.spec_from_file_location("gallery", PATH)
gallery = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(gallery)


@pytest.fixture(scope="module")
def tiles(tiny_model):
    gallery.ROWS = 1  # fewer pictures than on the page: a test should take seconds
    return gallery.drawn(tiny_model, 0), gallery.edited(tiny_model, 0)


def test_it_shows_the_pictures_that_the_suite_judges(tiles, tiny_model):
    prompts, _ = tiles
    asked = geneval.prompts(300, ev.generator("geneval", "heldout", 0), is_heldout=True)[: len(prompts)]
    assert [words for _, _, words, _ in prompts] == [facts["prompt"] for facts in asked]
    judged = trial.draw(tiny_model, [facts["prompt"] for facts in asked[:3]], 0, lambda _: None)
    for (_, picture, *_), same in zip(prompts, judged):  # batches of other sizes round differently
        assert np.abs(np.asarray(picture, int) - np.asarray(same, int)).max() <= 2


def test_every_category_is_one_column(tiles):
    prompts, edits = tiles
    tags = len(geneval.TAGS)
    assert len(prompts) == gallery.ROWS * tags and len(edits) == 2 * tags
    assert [heading for heading, *_ in prompts[:tags]] == list(gallery.TITLES.values())
    assert [heading.removeprefix("edit: ") for heading, *_ in edits[:tags]] == list(world.EDIT_KINDS)


def test_verdicts_are_those_of_the_checker():
    class Artist:
        """Carries out edits, draws one fixed scene for every prompt."""

        scene = world.sample_heldout_scene(np.random.default_rng(5), count=1)
        items = pictured.edit_items(6, ev.generator("edit", "heldout", 0), heldout=True)

        def generate(self, prompts, *, generator):
            return trial.pictures_of([self.scene] * len(prompts))

        def edit_batch(self, images, instructions, *, generator):
            return trial.pictures_of([after if k % 2 else before for k, (before, _, after, _) in enumerate(self.items)])

    edits = gallery.edited(Artist(), 0)
    assert [good for *_, good in edits] == [None] * 6 + [False, True] * 3
    assert gallery.told(edits) == "3 of 6 pass the checker"
    o = Artist.scene.objects[0]
    for _, _, words, is_good in gallery.drawn(Artist(), 0):
        assert is_good == (words in (f"a {o.colour} {o.shape}", f"an {o.colour} {o.shape}"))


def test_the_page_marks_good_and_failed():
    picture = Image.new("RGB", (72, 72))
    tiles = [("first", picture, "a star", True), ("", picture, "a heart", False), ("", picture, "given", None)]
    figure = gallery.page(tiles, columns=3)
    assert [axes.get_title() for axes in figure.axes] == ["✔ a star", "✘ a heart", "given"]
    assert [axes.title.get_color() for axes in figure.axes[:2]] == [gallery.GOOD, gallery.FAILED]
    assert [text.get_text() for text in figure.axes[0].texts] == ["first"]
