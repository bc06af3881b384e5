"""The notebooks' helpers: figures of the right size and content, static pictures before any widget."""

import types
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from blip3o_mini import world
from blip3o_mini.lab import playground, show, system
from blip3o_mini.lab.poster import Story, draw_poster, wrap

IMAGES = [np.full((72, 72, 3), value, np.uint8) for value in (0, 100, 200)]


@pytest.fixture
def shown(monkeypatch):
    """What reaches the notebook, in order."""
    seen = []
    monkeypatch.setattr("IPython.display.display", lambda thing: seen.append(thing))
    return seen


def test_show_emits_one_small_picture_with_alternative_text(shown):
    show.show(IMAGES, ["black", "gray", "light"])
    assert len(shown) == 1 and shown[0].data[:4] == b"\x89PNG" and len(shown[0].data) < 60_000
    assert shown[0].alt == "3 pictures: black; gray; light"


def test_show_repeats_byte_for_byte():
    assert show.png_of(show.figure_of(IMAGES, columns=2)) == show.png_of(show.figure_of(IMAGES, columns=2))


@pytest.mark.parametrize(("images", "titles"), [([], None), (IMAGES, ["one"])])
def test_show_refuses_what_does_not_fit(images, titles):
    with pytest.raises(ValueError):
        show.figure_of(images, titles)


@pytest.mark.parametrize("part", [None, *system.HIGHLIGHTS])
def test_the_system_is_drawn_with_every_part_highlighted(part):
    words = [text.get_text() for text in system.draw_system(part).axes[0].texts]
    for word in (*system.PARTS, "condition", "queries", "features", "velocity", "noise", "answer"):
        assert word in words


def test_the_system_has_no_other_parts():
    with pytest.raises(ValueError, match="no part 'unet'"):
        system.draw_system("unet")


def test_highlighting_changes_the_drawing(shown):
    system.show_system()
    system.show_system("dit")
    assert shown[0].data != shown[1].data and len(shown[1].data) < 100_000 and "Highlighted: dit" in shown[1].alt


class Painter:
    config = types.SimpleNamespace(guidance_scale=3.0)

    def generate(self, prompt, num_images=1, *, seed=0, guidance_scale=None):
        if not prompt:
            raise ValueError("the prompt is empty")
        return [Image.new("RGB", (72, 72), (seed, 0, 0))] * num_images


def test_the_playground_is_static_first_and_draws_on_a_click(shown):
    playground.playground(Painter(), num_images=2)
    assert shown[0].data[:4] == b"\x89PNG" and "red circle" in shown[0].alt
    text, controls, _ = shown[1].children
    text.value, controls.children[0].value = "a star", 7
    controls.children[2].click()
    assert "a star" in shown[-1].alt
    count = len(shown)
    text.value = ""
    controls.children[2].click()  # refused in words, nothing drawn, the button still works
    assert len(shown) == count and not controls.children[2].disabled


def test_the_page_leaves_out_what_is_empty():
    image = Image.new("RGB", (72, 72), "red")
    short = draw_poster(Story("title", "words", told=[("why?", "because")]))
    full = draw_poster(Story("title", "words", [("a", image, "")], [(image, "b", image)], [(image, [("c", "d")])]))
    assert short.width == full.width and short.height < full.height


def test_long_lines_are_wrapped_and_no_word_is_lost():
    words = "a large purple heart in the top right corner and a very long word " + "x" * 80
    lines = wrap(words, 20, 200)
    assert " ".join(lines) == words and len(lines) == 4


def test_every_picture_given_is_on_the_figure():
    pictures = [Image.new("RGB", (72, 72), colour) for colour in ("red", "blue", "green")]
    drawn = [axes for axes in show.figure_of(pictures, columns=2).axes if axes.images]
    assert len(drawn) == 3


@pytest.mark.parametrize("size", [(1.7, 1.9), (2.3, 2.1), (3.0, 1.6)])
def test_titles_and_labels_lie_inside_the_figure(size):
    """Axes of equal aspect need two passes of the layout; in one, titles were cut off."""
    from blip3o_mini.lab.plot import panels

    figure, axes = panels(["a title with gj"] * 5, "first number", "second number", size=size)
    for one in axes:
        one.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal")
    picture = np.asarray(Image.open(BytesIO(show.png_of(figure))).convert("L"))
    edges = (picture[:2], picture[-2:], picture[:, :2], picture[:, -2:])
    assert all((edge == 255).all() for edge in edges)


def test_fewer_colours_make_a_smaller_file():
    figure = show.figure_of(IMAGES, columns=2)
    assert len(show.png_of(figure, 16)) < len(show.png_of(figure))


def test_few_colours_are_enough_for_small_shapes():
    grounds = 2 * world.BACKGROUNDS
    scenes = [world.Scene((world.Object("circle", c, "small", 1, 1),), b) for c, b in zip(world.COLOURS, grounds)]
    figure = show.figure_of(list(world.render(scenes)), columns=4)
    full, few = show.png_of(figure), show.png_of(figure, 256)
    pixels = [np.asarray(Image.open(BytesIO(png)).convert("RGB")).astype(int) for png in (full, few)]
    off = np.abs(pixels[0] - pixels[1]).max(-1)
    assert len(few) < 0.6 * len(full)
    assert np.quantile(off, 0.99) <= 12 and off.max() <= 60  # of 255; the largest at blurred edges


def test_the_clock_counts_calls_and_lets_go():
    from torch import nn, ones

    from blip3o_mini.lab.clock import clocked

    inner, outer = nn.Linear(2, 2), nn.Linear(2, 2)
    with clocked({"inner": inner, "never": outer}) as spent:
        for _ in range(3):
            inner(ones(1, 2))
    assert spent["inner"][0] == 3 and 0 <= spent["inner"][1] < 60 and spent["never"] == [0, 0.0]
    inner(ones(1, 2))
    assert spent["inner"][0] == 3
    with pytest.raises(RuntimeError), clocked({"inner": inner}):
        inner(ones(1, 5))
    assert not inner._forward_hooks and not inner._forward_pre_hooks
