"""Chat messages ↔ token ids of the published model: Qwen's template, written by hand, and its special ids.

    <|im_start|>system⏎You are a helpful assistant.<|im_end|>⏎
    <|im_start|>user⏎…<|im_end|>⏎<|im_start|>assistant⏎        then, to draw: [IMG] and the queries

Same role and calls as `ChatTokens`. Special tokens are placed by number, so that nothing a person types is obeyed
as one. The three that BLIP3-o added are the last rows of the vocabulary (reference sections 1.1, 1.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from .config import BackboneConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

IGNORED = -100  # label of a token that is not trained on
# Qwen2.5-VL's ids, where a config does not say otherwise
PAD, TURN, END, VISION_START, VISION_END, IMAGE_PAD = 151_643, 151_644, 151_645, 151_652, 151_653, 151_655


class Mark(str):
    """The name of a special token that the template places; the same letters typed by a person are text."""


class QwenChat:
    """Qwen's tokenizer as the model uses it. Without tokenizer files only ids can be handled, no text."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast | None, config: BackboneConfig):
        self.tokenizer, self.config = tokenizer, config
        known = config.settings
        self.pad, self.end = known.get("bos_token_id", PAD), known.get("eos_token_id", END)
        self.image_pad = known.get("image_token_id", IMAGE_PAD)
        self.start_of_image, _, self.query_slot = range(config.vocabulary - 3, config.vocabulary)
        self.marks = {
            "<|im_start|>": self.pad + TURN - PAD,  # the only one that a config has no entry for
            "<|im_end|>": self.end,
            "<|vision_start|>": known.get("vision_start_token_id", VISION_START),
            "<|image_pad|>": self.image_pad,
            "<|vision_end|>": known.get("vision_end_token_id", VISION_END),
        }

    # ------------------------------------------------------------------ the template

    def turn(self, message: dict) -> list[str]:
        """One message as the template writes it: marks and texts. Raises ValueError on an unknown role or part."""
        role, content = message.get("role"), message.get("content")
        if role not in ("system", "user", "assistant"):
            raise ValueError(f"a message has the role {role!r}; expected 'system', 'user' or 'assistant'")
        pieces: list[str] = [Mark("<|im_start|>"), f"{role}\n"]
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if part.get("type") == "text":
                pieces.append(part["text"])
            elif part.get("type") == "image":  # one placeholder, which `widen` repeats
                pieces += map(Mark, ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>"))
            else:
                raise ValueError(f"a message part has the type {part.get('type')!r}; expected 'text' or 'image'")
        return [*pieces, Mark("<|im_end|>"), "\n"]

    def turns(self, messages: Sequence[dict], *, is_open: bool = True) -> list[tuple[list[str], bool]]:
        """A conversation, the system's message first: every turn's pieces, and whether the assistant said it."""
        if not messages or messages[0].get("role") != "system":
            messages = [{"role": "system", "content": self.config.system_prompt}, *messages]
        turns = [(self.turn(message), message["role"] == "assistant") for message in messages]
        return [*turns, ([Mark("<|im_start|>"), "assistant\n"], False)] if is_open else turns

    def written(self, messages: Sequence[dict], *, is_open: bool = True) -> str:
        """The conversation as one text, as the original hands it to its tokenizer."""
        return "".join(piece for pieces, _ in self.turns(messages, is_open=is_open) for piece in pieces)

    # ------------------------------------------------------------------ ids

    def words(self, text: str) -> list[int]:
        """Ids of plain text; special tokens that a person types are spelled out, not obeyed."""
        if self.tokenizer is None:
            raise ValueError("this checkpoint has no tokenizer files, so it reads no text; copy them into its folder")
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids

    def ids(self, pieces: Sequence[str]) -> list[int]:
        """Ids of a turn's pieces; neighbouring texts are tokenised as one."""
        found: list[int] = []
        for is_mark, group in groupby(pieces, key=lambda piece: isinstance(piece, Mark)):
            run = list(group)
            found += [self.marks[mark] for mark in run] if is_mark else self.words("".join(run))
        return found

    def chat(self, messages: Sequence[dict], *, is_open: bool = True) -> tuple[list[int], list[int]]:
        """Ids of a conversation, and for each id whether the assistant said it (1) or not (0)."""
        ids: list[int] = []
        said: list[int] = []
        for pieces, is_said in self.turns(messages, is_open=is_open):
            head, body = (pieces[:2], pieces[2:-1]) if is_said else (pieces, [])
            for part, flag in ((head, 0), (body, 1), (pieces[-1:] if is_said else [], 0)):
                found = self.ids(part)
                ids, said = ids + found, said + [flag] * len(found)
        return ids, said

    def bare(self, text: str) -> list[int]:
        """Ids of a prompt without template, as the published decoder's negative is drawn from " " (reference 1.5)."""
        return [*self.words(text), self.start_of_image]

    def widen(self, rows: Sequence[Sequence[int]], counts: Sequence[int]) -> list[list[int]]:
        """Repeat the placeholders in all rows, in order, as often as each picture has tokens."""
        left = iter(counts)
        return [
            [token for one in row for token in ([one] * next(left) if one == self.image_pad else [one])] for row in rows
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens left out."""
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()

    def training_rows(
        self, rows: Sequence[Sequence[int]], labels: Sequence[Sequence[int]], longest: int | None = None
    ) -> dict[str, np.ndarray]:
        """Text rows and labels as the published training stacks them, right-padded (reference section 5.1).

        Each row is cut so that [IMG] and the query slots fit behind it into `longest` tokens. Returns input_ids,
        labels and attention_mask (B, T), and query_start (B,), the place of the first query.
        """
        drawing = [self.start_of_image, *[self.query_slot] * self.config.num_queries]
        room = None if longest is None else max(0, longest - len(drawing))
        rows, labels = ([[*one[:room], *drawing] for one in many] for many in (rows, labels))
        width = max(map(len, rows))

        def stack(many: Sequence[Sequence[int]], filler: int) -> np.ndarray:
            return np.array([[*one, *[filler] * (width - len(one))] for one in many], np.int64)

        ids = stack(rows, self.pad)
        return {
            "input_ids": ids,
            "labels": stack(labels, IGNORED),
            "attention_mask": (ids != self.pad).astype(np.int64),
            "query_start": np.array([len(one) - self.config.num_queries for one in rows]),
        }
