"""The original's quirks (reference section 10): every row of the page names a test; here are those of no other file."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_published import tiny_published

from blip3o_mini.config import PRESETS
from blip3o_mini.qwen_chat import QwenChat

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "notebooks" / "PUBLISHED.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (Q\d+) \|.*\| `(\w+)\.py::(\w+)` \|$", PAGE, re.MULTILINE)
PROMPT = "a red circle"


@pytest.fixture(scope="module")
def model():
    return tiny_published()


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(3)
    return [Image.fromarray(rng.integers(0, 255, (56, 56 * k, 3), np.uint8)) for k in (1, 2)]


def drawn(model, prompt=PROMPT, **options):
    return np.asarray(model.generate(prompt, **options)[0], np.int16)


def test_every_quirk_has_its_row():
    assert [name for name, _, _ in ROWS] == [f"Q{k}" for k in range(1, 28)]


@pytest.mark.parametrize(("name", "file", "test"), ROWS, ids=[row[0] for row in ROWS])
def test_every_row_names_a_test_that_exists(name, file, test):
    tree = ast.parse((ROOT / "tests" / f"{file}.py").read_text(encoding="utf-8"))
    assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_pictures_end_in_no_closing_token(model):
    """Q3: of the three added tokens only [IMG] is ever read; the slots' number serves training."""
    chat = model.chat_tokens
    ids, _ = model.rows([[{"role": "user", "content": PROMPT}]], is_drawing=True)
    assert ids[0, -1] == chat.start_of_image == model.config.backbone.vocabulary - 3
    assert not {chat.start_of_image + 1, chat.query_slot} & {*ids[0].tolist()}


def test_drawing_leaves_the_turn_open_where_training_closed_it():
    """Q4: the published training text ends the assistant's empty turn before [IMG], inference does not."""
    chat = QwenChat(None, PRESETS["8b"].backbone)
    asked = [{"role": "user", "content": PROMPT}]
    trained = chat.written([*asked, {"role": "assistant", "content": ""}], is_open=False)
    assert trained == chat.written(asked) + "<|im_end|>\n"


def test_a_picture_does_not_depend_on_what_was_drawn_before(model):
    """Q9: the negative has its own seed, so the first picture is no exception."""
    first = drawn(model, seed=5)
    model.generate("two blue stars", 3)
    assert np.array_equal(first, drawn(model, seed=5))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_draws_and_answers(model, pictures, dtype):
    """Q17: trained in bfloat16, published for float16."""
    half = tiny_published().to(dtype)
    ids, mask = half.rows([[{"role": "user", "content": PROMPT}]], is_drawing=True)
    with torch.no_grad():
        difference = (half.backbone.condition(ids, mask) - model.backbone.condition(ids, mask)).abs().max()
    assert difference < 0.1 and drawn(half).shape == (32, 32, 3)
    assert isinstance(half.answer(pictures[0], "what?"), str)


def test_text_alone_can_be_trained_on(model):
    """Q20: the original's training forward falls over batches without pictures."""
    ids, mask = model.rows([[{"role": "user", "content": "why?"}], [{"role": "user", "content": "who is it then?"}]])
    logits = model.backbone.logits(model.backbone.hidden_states(ids, mask))
    torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    gradients = [p.grad for p in model.backbone.language.model.language_model.parameters()]
    model.zero_grad()
    assert all(g is not None and g.isfinite().all() for g in gradients)


def test_drawing_computes_no_words(model, monkeypatch):
    """Q21: the original computes the logits of the whole vocabulary at every step and drops them."""
    monkeypatch.setattr(model.backbone.language.lm_head, "forward", lambda *_: pytest.fail("logits were computed"))
    ids, mask = model.rows([[{"role": "user", "content": PROMPT}]], is_drawing=True)
    model.backbone.condition(ids, mask).square().sum().backward()
    model.zero_grad()


def test_several_pictures_stand_where_they_are_shown(model, pictures):
    """Q26: the original's placeholders are right for one picture only."""
    content = [{"type": "image"}, {"type": "text", "text": "and"}, {"type": "image"}]
    shown = model.see(pictures)
    ids, mask = model.rows([[{"role": "user", "content": content}]], shown)
    is_picture = (ids[0] == model.chat_tokens.image_pad).tolist()
    runs = "".join("x" if flag else " " for flag in is_picture).split()
    assert [len(run) for run in runs] == model.backbone.counts(shown) == [4, 8]
    swapped = model.see(pictures[::-1])
    states = [model.backbone.states(model.backbone.embed(i, p), m) for i, m, p in (
        (ids, mask, shown), (*model.rows([[{"role": "user", "content": content}]], swapped), swapped))]  # fmt: skip
    assert states[0].shape == states[1].shape and not torch.allclose(states[0][:, -1], states[1][:, -1], atol=1e-6)


def test_patches_follow_the_config(model, pictures):
    """Q27: the original picks an image processor by letters in the checkpoint's path."""
    sizes = model.backbone.language.config.vision_config
    width = 3 * sizes.temporal_patch_size * sizes.patch_size**2
    assert model.see(pictures).values.shape == (16 + 32, width)
