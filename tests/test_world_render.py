"""Rendering: right size and type, the same from a batch as alone, and what is asked for is what is seen."""

import numpy as np
import pytest

from blip3o_mini import world
from blip3o_mini.world import BACKGROUNDS, COLOURS, SHAPES, SIZES, Object, Scene, render, sample_scene
from blip3o_mini.world.render import GRADIENT, RGB, backdrop, contact_sheet, inside


def one(shape="circle", colour="red", size="large", row=1, column=1, dx=0, dy=0, background="white"):
    return Scene((Object(shape, colour, size, row, column, dx, dy),), background)


def test_images_are_uint8_of_the_asked_size():
    scenes = [sample_scene(np.random.default_rng(k)) for k in range(3)]
    assert render(scenes).shape == (3, 72, 72, 3)
    assert render(scenes).dtype == np.uint8
    assert render(scenes, size=48).shape == (3, 48, 48, 3)
    assert render([]).shape == (0, 72, 72, 3)


def test_a_batch_equals_one_by_one():
    scenes = [sample_scene(np.random.default_rng(k), allow_heldout=True) for k in range(40)]
    np.testing.assert_array_equal(render(scenes), np.concatenate([render([scene]) for scene in scenes]))


def test_rendering_leaves_the_prepared_stamps_and_boards_alone():
    scenes = [sample_scene(np.random.default_rng(k)) for k in range(20)]
    first = render(scenes)
    np.testing.assert_array_equal(render(scenes), first)


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_an_empty_scene_is_its_background(background):
    image = render([Scene((), background)])[0]
    np.testing.assert_allclose(image[0, 0], GRADIENT[background][0], atol=1)
    np.testing.assert_allclose(image[-1, -1], GRADIENT[background][1], atol=1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", SIZES)
def test_every_shape_stands_in_its_cell(shape, size):
    for cell in range(9):
        image = render([one(shape, "red", size, cell // 3, cell % 3)])[0].astype(int)
        changed = abs(image - backdrop("white", 72)).max(-1) > 90
        rows, columns = np.nonzero(changed)
        assert {*rows // 24} == {cell // 3}
        assert {*columns // 24} == {cell % 3}


@pytest.mark.parametrize("colour", COLOURS)
def test_the_middle_of_an_object_has_its_colour(colour):
    pixel = render([one("square", colour)])[0][36, 36].astype(int)
    assert abs(pixel - RGB[colour]).max() <= 16  # lit by 6 %


def test_large_is_larger_than_small():
    for shape in SHAPES:
        areas = {}
        for size in SIZES:
            image = render([one(shape, "blue", size)])[0].astype(int)
            areas[size] = (abs(image - backdrop("white", 72)).max(-1) > 90).sum()
        assert areas["large"] > 2 * areas["small"]


def test_the_offset_moves_an_object_by_whole_pixels():
    still = render([one("star", "green", "small", background="gray")])[0]
    right = render([one("star", "green", "small", dx=3, background="gray")])[0]
    np.testing.assert_array_equal(np.roll(still, 3, axis=1), right)  # the board is the same along a row
    up = render([one("star", "green", "small", dy=-2, background="gray")])[0].astype(int)
    board = backdrop("gray", 72)
    difference = np.roll(still - board, -2, axis=0) - (up - board)
    assert abs(difference).max() <= 3  # two rows of the gradient, and rounding


def test_edges_are_anti_aliased_and_objects_cast_a_shadow():
    image = render([one("circle", "blue", "large", background="white")])[0].astype(float)
    blueness = image[:, 30, 2] - image[:, 30, 0]  # a column that cuts the edge at a slant
    assert ((blueness > 30) & (blueness < 110)).any()  # between the board's 6 and the object's 180
    star = render([one("star", "blue", "large", background="white")])[0].astype(float)
    darker = backdrop("white", 72).mean(-1) - star.mean(-1)
    is_gray = np.ptp(star, axis=-1) < 20
    assert darker[is_gray].max() > 20  # a shadow: darker than the board, yet not blue


def test_objects_never_touch():
    for k in range(300):
        scene = sample_scene(np.random.default_rng(k), allow_heldout=True)
        boxes = [
            (24 * o.column + 12 + o.dx, 24 * o.row + 12 + o.dy, {"small": 6, "large": 10}[o.size] * 1.06)
            for o in scene.objects
        ]
        for i, (x, y, r) in enumerate(boxes):
            for u, v, s in boxes[:i]:
                assert max(abs(x - u), abs(y - v)) > r + s


def test_an_unknown_shape_is_a_sentence():
    with pytest.raises(ValueError, match="no shape 'blob'; choose one of circle"):
        inside("blob", np.zeros(1), np.zeros(1))


def test_contact_sheet_holds_every_image():
    images = [*render([sample_scene(np.random.default_rng(k)) for k in range(5)])]
    sheet = contact_sheet(images, columns=3, size=72, gap=4)
    assert sheet.size == (3 * 76 + 4, 2 * 76 + 4)
    np.testing.assert_array_equal(np.asarray(sheet)[4:76, 4:76], images[0])
    assert world.contact_sheet is contact_sheet
