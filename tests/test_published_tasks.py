"""All tasks by a model of the published kind: positions, masks, batches, guidance and pictures as published."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_published import FEATURES, WIDTH, tiny_published
from torchvision.transforms import v2

from blip3o_mini import flow
from blip3o_mini.qwen_chat import Mark
from blip3o_mini.qwen_vl import cut_patches
from blip3o_mini.tokens import pad_left
from blip3o_mini.vision import MEAN, square, to_tensor

PROMPTS = ["a red circle", "a large blue star to the left of a small green heart on a navy background"]


@pytest.fixture(scope="module")
def model():
    return tiny_published()


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (h, w, 3), np.uint8)) for h, w in ((84, 140), (56, 56), (100, 60))]


def ask(text, shown=True):
    return [{"role": "user", "content": [*[{"type": "image"}] * shown, {"type": "text", "text": text}]}]


def pixels(images):
    return np.stack([np.asarray(image, np.int16) for image in images])


# ------------------------------------------------------------------ words


def test_the_template_is_qwens(model):
    talk = [*ask("what is it?"), {"role": "assistant", "content": "a star"}, {"role": "user", "content": "sure?"}]
    assert model.chat_tokens.written(talk) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>what is it?<|im_end|>\n"
        "<|im_start|>assistant\na star<|im_end|>\n<|im_start|>user\nsure?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_ids_spell_the_template_with_special_tokens_by_number(model):
    chat = model.chat_tokens
    ids, said = chat.chat([*ask("what is it?"), {"role": "assistant", "content": "a star"}])
    assert [ids.count(chat.marks[m]) for m in chat.marks] == [4, 3, 1, 1, 1]
    assert [i for i, s in zip(ids, said) if s] == [*chat.words("a star"), chat.end]
    assert chat.start_of_image == model.config.backbone.vocabulary - 3


def test_special_tokens_that_a_person_types_are_text(model):
    chat = model.chat_tokens
    ids, _ = chat.chat([{"role": "user", "content": "<|im_end|> <|image_pad|> [IMG]"}])
    assert ids.count(chat.end) == 2 and chat.image_pad not in ids and chat.start_of_image not in ids
    assert chat.ids([Mark("<|im_end|>"), "<|im_end|>"])[0] == chat.end


def test_a_system_message_replaces_the_usual_one(model):
    written = model.chat_tokens.written([{"role": "system", "content": "Be brief."}, *ask("who?", shown=False)])
    assert written.startswith("<|im_start|>system\nBe brief.<|im_end|>\n") and "helpful" not in written


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({"role": "robot", "content": "x"}, "role 'robot'"),
        ({"role": "user", "content": [{"type": "sound"}]}, "'sound'"),
    ],
)
def test_unknown_roles_and_parts_are_refused(model, message, says):
    with pytest.raises(ValueError, match=says):
        model.chat_tokens.chat([message])


def test_pictures_take_the_room_they_need(model, pictures):
    shown = model.see(pictures)
    ids, mask = model.rows([ask("what?")] * 3, shown)
    counts = (ids == model.chat_tokens.image_pad).sum(1).tolist()
    assert counts == model.backbone.counts(shown) == [3 * 5, 4, 8] and mask.sum(1).unique().numel() == 3
    with pytest.raises(ValueError, match="27 image tokens but the pictures make 4"):
        model.backbone.condition(ids, mask, model.see(pictures[1:2]))


# ------------------------------------------------------------------ pictures


@pytest.mark.parametrize("size", [(97, 61), (50, 700), (713, 448), (715, 448), (30, 31), (448, 449), (640, 427)])
def test_squares_are_those_of_torchvision(size):
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 255, (*size, 3), np.uint8))
    resized = v2.Resize(448, v2.InterpolationMode.BICUBIC)(picture)
    assert np.array_equal(square(picture, 448), v2.CenterCrop(448)(resized))


def test_drawing_sees_a_squeezed_square_answering_the_picture_itself(model, pictures):
    drawing, answering = (model.see(pictures[:1], is_drawing=flag) for flag in (True, False))
    assert drawing.grid.tolist() == [[1, 32, 32]] and answering.grid.tolist() == [[1, 6, 10]]
    squeezed = pictures[0].resize((448, 448), Image.BICUBIC)
    assert torch.equal(drawing.values, cut_patches([squeezed]).values)


def test_the_tower_reads_squares_of_its_size_only(model):
    grey = torch.tensor(MEAN).view(1, 3, 1, 1).expand(1, 3, 56, 56)
    assert torch.allclose(model.vision(grey), model.vision.null_features(model.device), atol=1e-5)
    assert model.vision(grey).shape == (1, 4, FEATURES)
    with pytest.raises(ValueError, match=r"expected \(B, 3, 56, 56\)"):
        model.vision(torch.zeros(1, 3, 56, 84))


# ------------------------------------------------------------------ conditions


def rows_of(model, texts):
    chat = model.chat_tokens
    return [[*chat.chat(ask(text, shown=False))[0], chat.start_of_image] for text in texts]


@torch.no_grad()
def test_prompts_of_any_length_are_read_in_one_batch(model):
    rows = rows_of(model, [*PROMPTS, "a"])
    alone = [model.backbone.condition(*model.aligned([row], None)) for row in rows]
    together = model.backbone.condition(*model.aligned(rows, None))
    assert together.shape == (3, 4, WIDTH)
    assert torch.allclose(together, torch.cat(alone), atol=2e-5)


@torch.no_grad()
def test_queries_are_causal(model):
    ids, mask = model.aligned(rows_of(model, PROMPTS[:1]), None)
    before = model.backbone.condition(ids, mask)
    kept = model.backbone.queries.data.clone()
    try:
        model.backbone.queries.data[:, 2] += 1
        after = model.backbone.condition(ids, mask)
    finally:
        model.backbone.queries.data.copy_(kept)
    assert torch.allclose(before[:, :2], after[:, :2], atol=1e-6)
    assert (before[:, 2:] - after[:, 2:]).abs().amax((0, 2)).min() > 1e-4


@torch.no_grad()
def test_drawing_counts_places_plainly_and_answering_by_rows_and_columns(model, pictures):
    """The two ways of one backbone: both differ, and each is what transformers computes for it."""
    shown = model.see(pictures[:1])
    ids, mask = model.rows([ask("what?")], shown)
    backbone, language = model.backbone, model.backbone.language.model
    aware, plain = backbone.hidden_states(ids, mask, shown), backbone.states(backbone.embed(ids, shown), mask)
    assert (aware - plain).abs().max() > 1e-3
    types = (ids == model.chat_tokens.image_pad).int()
    places, _ = language.get_rope_index(ids, types, image_grid_thw=shown.grid, attention_mask=mask)
    assert places.unique(dim=0).shape[0] > 1  # rows and columns are counted apart
    told = language.language_model(
        inputs_embeds=backbone.embed(ids, shown), attention_mask=mask, position_ids=places, use_cache=False
    )
    assert torch.allclose(told.last_hidden_state, aware, atol=1e-5)


def test_only_queries_learn_through_a_frozen_backbone(model):
    model.backbone.language.requires_grad_(False)
    try:
        model.backbone.condition(*model.aligned(rows_of(model, PROMPTS), None)).square().sum().backward()
        gradients = {name for name, p in model.backbone.named_parameters() if p.grad is not None}
    finally:
        model.backbone.language.requires_grad_(True)
        model.zero_grad()
    assert gradients == {"queries"}


# ------------------------------------------------------------------ answering


def test_answers_in_a_batch_are_those_of_single_calls(model, pictures):
    images = [pictures[0], None, pictures[2]]
    together = model.answer_batch(images, ["what?", "why is it so?", "where is the star?"])
    alone = [model.answer(i, q) for i, q in zip(images, ["what?", "why is it so?", "where is the star?"])]
    assert together == alone


def test_a_call_does_not_remember_the_one_before(model, pictures):
    """transformers keeps the positions of the last picture; another batch size after it used to crash."""
    first = model.answer(None, "why?")
    model.answer_batch(pictures, ["what?"] * 3)
    assert model.answer(None, "why?") == first


def test_shares_of_labels_are_those_of_the_answers(model, pictures):
    shares = model.classify(pictures[0], ["star", "red circle", "a"])
    assert sum(shares.values()) == pytest.approx(1) and len(set(shares.values())) == 3
    both = model.classify_batch(pictures[:2], ["star", "red circle", "a"])
    assert both[0] == pytest.approx(shares, abs=1e-5) and both[1] != both[0]


def test_a_conversation_is_answered(model, pictures):
    talk = [{"role": "user", "content": [{"type": "image", "image": pictures[0]}, {"type": "text", "text": "what?"}]}]
    message = model.chat(talk)
    assert message["role"] == "assistant" and message["content"][0]["text"] == model.answer(pictures[0], "what?")


# ------------------------------------------------------------------ drawing


def test_prompts_are_drawn_in_a_batch_as_alone(model):
    together = pixels(model.generate(PROMPTS, 2, seed=4))
    alone = pixels([image for text in PROMPTS for image in model.generate(text, 2, seed=4)])
    assert together.shape == (4, 32, 32, 3) and np.abs(together - alone).max() <= 1
    assert not np.array_equal(together[0], together[1]) and not np.array_equal(together[0], together[2])


def test_the_network_is_told_whole_thousandths(model, monkeypatch):
    told = []
    forward = model.dit.forward

    def note(x, timestep, condition, **options):
        told.append(timestep)
        return forward(x, timestep, condition, **options)

    monkeypatch.setattr(model.dit, "forward", note)
    model.generate(PROMPTS[0], decoder_guidance_scale=1)
    assert [float(t) for t in told] == [1000, 666, 333]


def test_both_guidance_scales_and_the_negative_prompt_matter(model):
    usual = pixels(model.generate(PROMPTS[0]))
    same = pixels(model.generate(PROMPTS[0], guidance_scale=3.0, decoder_guidance_scale=3.0, negative_prompt=" "))
    assert np.array_equal(usual, same)
    for options in (
        {"guidance_scale": 1.0}, {"decoder_guidance_scale": 1.0}, {"negative_prompt": "a dark blur"},
        {"steps": 2}, {"decoder_steps": 3}, {"seed": 1},
    ):  # fmt: skip
        assert not np.array_equal(usual, pixels(model.generate(PROMPTS[0], **options))), options


@torch.no_grad()
def test_the_negative_is_drawn_for_the_bare_prompt(model):
    options = {"steps": 3, "guidance_scale": 3.0}
    ids = torch.tensor([[*model.chat_tokens.words(" "), model.chat_tokens.start_of_image]])
    condition = model.backbone.condition(ids, torch.ones_like(ids))
    noise = torch.randn(1, 4, FEATURES, generator=torch.Generator().manual_seed(0))
    velocity = flow.guided(lambda x, t, c: model.dit(x, t, c), condition, 3.0, is_integer=True)
    *_, features = flow.euler(velocity, noise, flow.sigmas(3))
    assert torch.equal(model.negative(None, **options), features)


def test_a_picture_leads_to_another(model, pictures):
    first, second = (pixels(model.edit(image, "make it blue")) for image in pictures[:2])
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, pixels(model.edit(pictures[0], "make it red")))


def test_a_picture_is_drawn_again_from_its_features(model, pictures):
    with torch.no_grad():
        features = model.vision(to_tensor(np.stack([np.asarray(square(p, 56)) for p in pictures])))
    generators = model.generators(3, 1, 0, None)
    ours = model.decode(features, generators, negative=model.vision.null_features(model.device), guidance=3.0)
    assert np.array_equal(pixels(model.reconstruct(pictures)), pixels(ours))


def test_the_small_model_is_not_guided_in_its_decoder(tiny_model):
    with pytest.raises(ValueError, match="leave decoder_guidance_scale at 1"):
        tiny_model.generate("a red circle", steps=1, decoder_guidance_scale=2.0)
    with pytest.raises(ValueError, match="a negative prompt changes nothing"):
        tiny_model.generate("a red circle", steps=1, negative_prompt="blur")


def test_rows_for_training_end_in_the_query_slots(model):
    chat = model.chat_tokens
    batch = chat.training_rows([[5, 6, 7], [5, 6, 7, 8, 9]], [[-100, -100, 7]] * 2, longest=8)
    assert batch["input_ids"][1].tolist() == [5, 6, 7, chat.start_of_image, *[chat.query_slot] * 4]
    assert batch["query_start"].tolist() == [4, 4] and batch["attention_mask"].all()
    assert np.array_equal(pad_left([[1, 2]], 0)[0], [[1, 2]])
