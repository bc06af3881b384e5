"""The whole system: order, seeds, batches, both ways through a conversation, saving and refusing."""

import numpy as np
import pytest
import torch
from PIL import Image

from blip3o_mini.model import Blip3oMini

PROMPTS = ["a red circle", "a large blue star to the left of a small green heart on a navy background"]


def pixels(images):
    return np.stack([np.asarray(image, np.int16) for image in images])


@pytest.fixture(scope="module")
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 60, 3), np.uint8).astype(np.uint8))


def test_same_seed_same_pictures_other_seed_others(tiny_model):
    one, two, other = (pixels(tiny_model.generate(PROMPTS[0], 2, steps=3, seed=s)) for s in (1, 1, 5))
    assert np.array_equal(one, two) and not np.array_equal(one, other)


def test_a_batch_gives_what_single_calls_give(tiny_model):
    together = pixels(tiny_model.generate(PROMPTS, 2, steps=3, seed=4))
    alone = pixels([image for text in PROMPTS for image in tiny_model.generate(text, 2, steps=3, seed=4)])
    assert np.abs(together - alone).max() <= 1  # float32 sums in another order, then rounding to grey levels


def test_image_k_starts_from_seed_plus_k(tiny_model):
    many = pixels(tiny_model.generate(PROMPTS[1], 3, steps=2, seed=7))
    last = pixels(tiny_model.generate(PROMPTS[1], 1, steps=2, seed=9))
    assert np.abs(many[2] - last[0]).max() <= 1


def test_generators_replace_seeds(tiny_model):
    given = [torch.Generator().manual_seed(k) for k in (3, 4)]
    ours = pixels(tiny_model.generate(PROMPTS[0], 2, steps=2, generator=given))
    assert np.array_equal(ours, pixels(tiny_model.generate(PROMPTS[0], 2, steps=2, seed=3)))
    with pytest.raises(ValueError, match="1 generators were given for 2 pictures"):
        tiny_model.generate(PROMPTS[0], 2, generator=[torch.Generator()])


@pytest.mark.parametrize(
    ("options", "message"),
    [({"steps": 0}, "steps is 0"), ({"num_images": 0}, "num_images is 0"), ({"guidance_scale": float("nan")}, "nan")],
)
def test_impossible_options_are_refused(tiny_model, options, message):
    with pytest.raises(ValueError, match=message):
        tiny_model.generate(PROMPTS[0], **options)


def test_empty_and_endless_prompts_are_refused(tiny_model):
    with pytest.raises(ValueError, match="the prompt is empty"):
        tiny_model.generate("  ")
    with pytest.raises(ValueError, match="the context holds 256"):
        tiny_model.generate("red " * 400)


def test_answers_do_not_depend_on_the_batch(tiny_model, picture):
    asked = [(picture, "what color is the star?"), (None, "how many corners does a triangle have?"), (picture, "hi")]
    together = tiny_model.answer_batch([image for image, _ in asked], [text for _, text in asked])
    assert together == [tiny_model.answer(image, text) for image, text in asked]


def test_labels_share_one(tiny_model, picture):
    shares = tiny_model.classify(picture, ["red circle", "blue star", "nothing at all"])
    assert sum(shares.values()) == pytest.approx(1) and len(shares) == 3


def test_chat_speaks_or_draws_and_accepts_its_own_pictures(tiny_model, picture, monkeypatch):
    history = [
        {"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": "make it red"}]},
        {"role": "assistant", "content": [{"type": "image", "image": picture}]},
        {"role": "user", "content": "draw a star"},
    ]
    assert tiny_model.chat(history, steps=1)["role"] == "assistant"  # an untrained model may say anything
    start = tiny_model.chat_tokens.start_of_image
    monkeypatch.setattr(tiny_model.backbone, "write", lambda *_, **__: torch.tensor([[start]]))
    answer = tiny_model.chat(history, steps=2)
    assert answer["role"] == "assistant" and answer["content"][0]["image"].size == (72, 72)
    with pytest.raises(ValueError, match="must end with a message of the user"):
        tiny_model.chat(history[:2])


def test_saved_and_loaded_is_the_same_model(tiny_model, picture, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    loaded = Blip3oMini.from_pretrained(tmp_path)
    for make in (lambda m: m.generate(PROMPTS, steps=3), lambda m: m.edit(picture, "make it blue", steps=3)):
        assert np.array_equal(pixels(make(tiny_model)), pixels(make(loaded)))
    assert loaded.parameter_counts() == tiny_model.parameter_counts()


def test_a_damaged_or_foreign_folder_is_refused(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    weights = tmp_path / "dit.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"dit\.safetensors is damaged"):
        Blip3oMini.from_pretrained(tmp_path)
    weights.write_bytes((tmp_path / "backbone.safetensors").read_bytes())
    with pytest.raises(ValueError, match="does not fit this model's dit"):
        Blip3oMini.from_pretrained(tmp_path)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=r"dit\.safetensors is missing"):
        Blip3oMini.from_pretrained(tmp_path)


def test_padding_changes_no_condition(tiny_model):
    rows = [[{"role": "user", "content": f"draw {text}"}] for text in PROMPTS]
    both = tiny_model.backbone.condition(*tiny_model.rows(rows, is_drawing=True))
    alone = torch.cat([tiny_model.backbone.condition(*tiny_model.rows([r], is_drawing=True)) for r in rows])
    torch.testing.assert_close(both, alone, rtol=1e-4, atol=1e-4)  # attention sums over padded rows differently
