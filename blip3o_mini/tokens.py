"""Words ↔ numbers: a byte-level BPE tokenizer, the chat template, and where pictures stand in it.

A picture is one `<|image_pad|>` per feature between `<|vision_start|>` and `<|vision_end|>`; the
request to draw ends in `[IMG]`, after which the backbone reads the learnable queries. Lesson 02.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import world

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, END = "<|endoftext|>", "<|im_end|>"
USER, ASSISTANT = "<|user|>", "<|assistant|>"
VISION_START, VISION_END, IMAGE_PAD = "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"
START_OF_IMAGE = "[IMG]"
SPECIAL = (PAD, END, USER, ASSISTANT, VISION_START, VISION_END, IMAGE_PAD, START_OF_IMAGE)

# One token opens a turn, one closes the assistant's: short sequences are what a laptop can train on.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|user|>' if message.role == 'user' else '<|assistant|>' }}"
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}"
    "{{ '<|vision_start|><|image_pad|><|vision_end|>' if part.type == 'image' else part.text }}"
    "{% endfor %}{% endif %}"
    "{{ '<|im_end|>' if message.role == 'assistant' else '' }}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def corpus(scenes: int = 3000) -> list[str]:
    """Sentences about the world, always the same, to train the tokenizer on."""
    rng = np.random.default_rng(0)
    lines = ["please hello thanks the a an is are of to on in at and with not my your put make it this that"]
    for question, answer in world.facts():
        lines += [question, answer]
    for _ in range(scenes):
        scene = world.sample_scene(rng)
        lines += [world.draw_request(world.short_caption(scene, rng), rng), world.long_caption(scene, rng)]
        asked = world.questions(scene, rng) + world.more_questions(scene, rng)
        lines += [f"{question} {answer}" for question, answer, _ in asked]
        lines += [world.loosely(question, rng, slips=0) for question, _, _ in asked]
        lines.append(world.loosely(lines[-1 - 2 * len(asked)], rng, slips=0))
        lines += [world.edit(scene, rng)[0], *world.DRAW_REQUESTS, *sum(world.CAPTION_REQUESTS.values(), ())]
    return lines


def train_tokenizer(vocabulary: int, lines: Iterable[str] | None = None) -> PreTrainedTokenizerFast:
    """Train a lower-casing byte-level BPE: every word of the world becomes one token, any other a few."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=list(SPECIAL), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(lines or corpus(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, chat_template=CHAT_TEMPLATE,
        additional_special_tokens=[t for t in SPECIAL if t not in (PAD, END)],
    )  # fmt: skip


def has_tokenizer(folder: Path) -> bool:
    """Whether a checkpoint folder has tokenizer files: one for everything, or words and merges apart."""
    return any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json"))


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a checkpoint folder; raises ValueError when its files are missing or damaged."""
    from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

    try:
        is_one = (folder / "tokenizer.json").is_file() or not has_tokenizer(folder)
        return (PreTrainedTokenizerFast if is_one else Qwen2Tokenizer).from_pretrained(folder, local_files_only=True)
    except Exception as error:  # a damaged tokenizer.json raises a bare Exception
        raise ValueError(f"the tokenizer files in {folder} cannot be read ({error}); copy the folder again") from error


class ChatTokens:
    """The tokenizer as the model uses it: chat messages in, token ids with room for pictures out."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, num_features: int):
        self.tokenizer = tokenizer
        self.num_features = num_features
        ids = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
        self.pad, self.end, self.user, self.assistant = ids[PAD], ids[END], ids[USER], ids[ASSISTANT]
        self.image_pad, self.start_of_image = ids[IMAGE_PAD], ids[START_OF_IMAGE]
        self.picture = [ids[VISION_START], *[self.image_pad] * num_features, ids[VISION_END]]
        self._words = lru_cache(maxsize=65536)(
            lambda text: tuple(tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids)
        )

    def words(self, text: str) -> tuple[int, ...]:
        """Ids of plain text; special tokens that a person types are spelled out, not obeyed."""
        return self._words(text)

    def chat(self, messages: Sequence[dict], *, is_open: bool = True) -> tuple[list[int], list[int]]:
        """Ids of a conversation, and for each id whether the assistant said it (1) or not (0).

        `content` is a string or a list of parts {"type": "text", "text": …} and {"type": "image", …}.
        With `is_open` the sequence ends where the assistant is to speak. Raises ValueError on an
        unknown role or part.
        """
        ids: list[int] = []
        said: list[int] = []
        for message in messages:
            role, content = message.get("role"), message.get("content")
            if role not in ("user", "assistant"):
                raise ValueError(f"a message has the role {role!r}; expected 'user' or 'assistant'")
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            turn = [token for part in parts for token in self._part(part, role)]
            if role == "user":
                ids += [self.user, *turn]
                said += [0] * (len(turn) + 1)
            else:
                shown = set(self.picture)  # the assistant asks for a picture, it does not spell it
                ids += [self.assistant, *turn, self.end]
                said += [0, *[int(token not in shown) for token in turn], 1]
        if is_open:
            ids, said = [*ids, self.assistant], [*said, 0]
        return ids, said

    def _part(self, part: dict, role: str) -> Sequence[int]:
        kind = part.get("type")
        if kind == "text":
            return self.words(part["text"])
        if kind == "image":
            # A picture the assistant made stands behind the token that asked for it.
            return [self.start_of_image, *self.picture] if role == "assistant" else self.picture
        if kind == "draw":
            return [self.start_of_image]
        raise ValueError(f"a message part has the type {kind!r}; expected 'text' or 'image'")

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens left out."""
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()


def pad_left(rows: Sequence[Sequence[int]], pad: int) -> tuple[np.ndarray, np.ndarray]:
    """Stack rows of different length, aligned at their ends: ids (B, T) and mask (B, T)."""
    longest = max(len(row) for row in rows)
    ids = np.full((len(rows), longest), pad, np.int64)
    mask = np.zeros((len(rows), longest), np.int64)
    for k, row in enumerate(rows):
        ids[k, longest - len(row) :] = row
        mask[k, longest - len(row) :] = 1
    return ids, mask
