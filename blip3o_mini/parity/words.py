"""Prompts, training batches and input pictures as the original prepares them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..config import preset
from ..qwen_chat import QwenChat
from ..qwen_vl import cut_patches, squeeze
from ..vision import square
from .fixture import EXACT, PIXELS, SUM_OF_PIXELS, Fixture, Row

BACKBONE = preset("8b").backbone
PICTURE = "<|vision_start|><|image_pad|><|vision_end|>"


def check_understanding(fixture: Fixture, folder: Path) -> Iterator[Row]:
    """An input picture's way to patches: cropped in training, squeezed in inference."""
    picture = Image.fromarray(fixture["rgb"].numpy())
    for case in fixture.names(r"(\w+)\.pixel_values_rows"):
        shaped = square(picture, 448) if case.startswith("training") else squeeze(picture)
        values, grid = cut_patches([shaped])
        ours = {"pixel_values_rows": values[fixture[f"{case}.row_indices"]]}
        for key, value in ours.items():
            yield fixture.compare_pixels(f"{case}.{key}", value, fixture[f"{case}.{key}"], PIXELS)
        if (key := f"{case}.resized_rgb") in fixture.tensors:
            rgb = torch.from_numpy(np.array(shaped)).float() / 255
            yield fixture.compare_pixels(key, rgb, fixture[key].float() / 255, PIXELS)
        if (key := f"{case}.row_sums") in fixture.tensors:
            width = values.shape[1]
            yield fixture.compare(f"{key}, per value", values.sum(1) / width, fixture[key] / width, SUM_OF_PIXELS)
        yield from fixture.compare_keys({f"{case}.image_grid_thw": grid}, EXACT)


# ------------------------------------------------------------------ text


def same(fixture: Fixture, quantity: str, ours: object, theirs: object) -> Row:
    """A row for things that are equal or not."""
    return Row(fixture.name, quantity, float(ours != theirs), 0.0, ours == theirs)


def user_says(text: str) -> str:
    """What the user's turn of a written conversation says; the caption of a fixture may be any."""
    found = re.search(r"<\|im_start\|>user\n(.*?)<\|im_end\|>", text, re.DOTALL)
    return found[1] if found else ""


def conversation(says: str) -> list[dict]:
    """Messages of a conversation that asks to draw what the fixture's user says."""
    shown, said = re.fullmatch(r"(<image>|<\|vision_start\|>.*?<\|vision_end\|>)?(.*)", says, re.DOTALL).groups()
    prefix = BACKBONE.generation_prompt.format(caption="")
    caption = said.removeprefix(prefix)
    text = said if shown else BACKBONE.generation_prompt.format(caption=caption)
    picture = [{"type": "image"}] if shown else []
    return [{"role": "user", "content": [*picture, {"type": "text", "text": text}]}]


def check_prompts(fixture: Fixture, folder: Path) -> Iterator[Row]:
    """Every prompt and training text, letter by letter; every batch, id by id."""
    chat = QwenChat(None, BACKBONE)
    yield from check_inference_prompts(fixture, chat)
    for name, told in fixture.setting("training", default={}).items():
        yield from check_training_text(fixture, chat, f"training.{name}", told)
    for name, told in fixture.settings.items():
        if name.startswith("collator"):
            yield from check_collator(fixture, name, told)


def check_inference_prompts(fixture: Fixture, chat: QwenChat) -> Iterator[Row]:
    for name, told in fixture.setting("inference", default={}).items():
        quantity = f"inference.{name}"
        if isinstance(told, str) and "<|im_start|>" in told:
            written = chat.written(conversation(user_says(told))).replace(PICTURE, "<image>")
            yield same(fixture, quantity, written, told)
        elif name == "image_placeholder_expansion":
            _, grid = cut_patches([squeeze(Image.new("RGB", (64, 32)))])
            tokens = int(grid.prod()) // 4
            yield same(fixture, quantity, f"<|vision_start|> + {tokens} x <|image_pad|> + <|vision_end|>", told["with"])
        elif name == "decoder_negative_prompt":
            yield same(fixture, quantity, preset("8b").decoder.negative_prompt, told)
        elif name == "appended_ids_after_tokenised_text":
            yield same(fixture, quantity, [chat.start_of_image], told)
        elif name == "then":
            yield same(fixture, quantity, f"{BACKBONE.num_queries} latent queries as embeddings", told)
        else:
            yield Row(fixture.name, f"{quantity}: not checked, unknown quantity")


def check_training_text(fixture: Fixture, chat: QwenChat, quantity: str, told: dict) -> Iterator[Row]:
    """The text that is trained on ends the assistant's empty turn before [IMG] (quirk Q4)."""
    messages = [*conversation(user_says(told["text"])), {"role": "assistant", "content": ""}]
    slots = re.search(r"<\|vision_start\|>(.*?)<\|vision_end\|>", told["text"])
    runs = []
    for pieces, is_said in chat.turns(messages, is_open=False):
        text = "".join(pieces).replace("<|image_pad|>", slots[1] if slots else "")
        if runs and runs[-1]["label"] == is_said:
            runs[-1]["text"] += text
        else:
            runs.append({"label": is_said, "text": text})
    yield same(fixture, f"{quantity}.text", "".join(run["text"] for run in runs), told["text"])
    yield same(fixture, f"{quantity}.runs", runs, told["runs"])


def check_collator(fixture: Fixture, name: str, told: dict) -> Iterator[Row]:
    """A batch built from rows of text; `inputs` are given, or only the length of one row."""
    rows = told["inputs"] if "inputs" in told else [list(range(told["input_length"]))]
    labels = told.get("input_labels", rows)
    chat = QwenChat(None, BACKBONE)
    batch = chat.training_rows(rows, labels, told.get("model_max_length"))
    made = {key: value.tolist() for key, value in batch.items()}
    made["output_ids_head"] = made["input_ids"][0][: len(told.get("output_ids_head", []))]
    made["output_length"] = len(made["input_ids"][0])
    for key, ours in made.items():
        if key in told:
            yield same(fixture, f"{name}.{key}", ours, told[key])
