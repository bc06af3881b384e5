"""The published backbone: Qwen2.5-VL with its own image tower, and the queries that read out a condition.

Same role and calls as `Backbone`; pictures enter as patches instead of features. Its positions have two forms:
    drawing    0, 1, 2, … on all three rotary axes, also over a picture's tokens   (quirk Q5: trained that way)
    answering  aware of a picture's rows and columns, as Qwen2.5-VL was trained
Language model and image tower are transformers' own and frozen as published (reference sections 1.3, 2.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from .backbone import positions
from .config import BackboneConfig
from .qwen_chat import QwenChat

RMS_EPS = 1e-6  # of all published models; transformers' own default is another
DRAWING_SIZE = 448  # pictures beside a request to draw are squeezed to a square: 256 tokens (reference 2.1)


class Patches(NamedTuple):
    """Pictures as the image tower takes them: values (patches, C) of all, grid (pictures, 3) in patches."""

    values: Tensor
    grid: Tensor

    def repeated(self, times: int) -> Patches:
        """All pictures, `times` over."""
        return Patches(self.values.repeat(times, 1), self.grid.repeat(times, 1))


def squeeze(image: Image.Image) -> Image.Image:
    """A picture as a request to draw shows it: a square, whatever its shape was."""
    return image.convert("RGB").resize((DRAWING_SIZE, DRAWING_SIZE), Image.BICUBIC)


def cut_patches(images: Sequence[Image.Image], **options) -> Patches:
    """Pictures as the published image tower takes them; options are those of transformers' image processor."""
    from transformers import Qwen2VLImageProcessorPil

    out = Qwen2VLImageProcessorPil(**options)([image.convert("RGB") for image in images], return_tensors="pt")
    return Patches(out["pixel_values"], out["image_grid_thw"])


def language_config(config: BackboneConfig):
    """transformers' configuration; `settings` has its own keys as a published config.json has them, flat."""
    from transformers import Qwen2_5_VLConfig

    sizes = dict(
        vocab_size=config.vocabulary, hidden_size=config.width, intermediate_size=config.ffn_width,
        num_hidden_layers=config.layers, num_attention_heads=config.heads, num_key_value_heads=config.kv_heads,
        max_position_embeddings=config.context, rope_theta=config.rope_theta, tie_word_embeddings=config.is_tied,
    )  # fmt: skip
    settings = {key: dict(value) if isinstance(value, dict) else value for key, value in config.settings.items()}
    return Qwen2_5_VLConfig(**{"rms_norm_eps": RMS_EPS} | settings | sizes)


class QwenVlBackbone(nn.Module):
    """Qwen2.5-VL from transformers, and the queries."""

    def __init__(self, config: BackboneConfig, tokens: QwenChat):
        super().__init__()
        from transformers import Qwen2_5_VLForConditionalGeneration

        self.config, self.image_pad, self.end, self.pad = config, tokens.image_pad, tokens.end, tokens.pad
        self.language = Qwen2_5_VLForConditionalGeneration(language_config(config))
        self.queries = nn.Parameter(config.query_std * torch.randn(1, config.num_queries, config.width))

    # ------------------------------------------------------------------ pictures

    def patches(self, images: Sequence[Image.Image], *, is_drawing: bool = False) -> Patches:
        """Cut pictures into patches: of their own size and shape for answering, squeezed to a square for drawing."""
        sizes, limits = self.language.config.vision_config, self.config.settings.get("image_limits", {})
        images = [squeeze(image) for image in images] if is_drawing else images
        cut = cut_patches(
            images, patch_size=sizes.patch_size, temporal_patch_size=sizes.temporal_patch_size,
            merge_size=sizes.spatial_merge_size, **limits,
        )  # fmt: skip
        return Patches(*(part.to(self.queries.device) for part in cut))

    def counts(self, pictures: Patches) -> list[int]:
        """Tokens that each picture takes: neighbouring patches are merged."""
        return (pictures.grid.prod(1) // self.language.config.vision_config.spatial_merge_size**2).tolist()

    def look(self, pictures: Patches) -> Tensor:
        """The image tower's tokens of all pictures, one after the other (tokens, H)."""
        tower = self.language.model.visual
        return tower(pictures.values.to(tower.dtype), grid_thw=pictures.grid).pooler_output

    # ------------------------------------------------------------------ drawing

    def embed(self, ids: Tensor, pictures: Patches | None = None) -> Tensor:
        """Embeddings (B, T, H) of ids (B, T); the i-th image placeholder takes the i-th token of the pictures."""
        embeddings = self.language.get_input_embeddings()(ids)
        is_image = ids == self.image_pad
        seen = None if pictures is None else self.look(pictures)
        count = 0 if seen is None else len(seen)
        if int(is_image.sum()) != count:
            raise ValueError(f"the messages hold {int(is_image.sum())} image tokens but the pictures make {count}")
        if count:
            embeddings = embeddings.masked_scatter(is_image.unsqueeze(-1), seen.to(embeddings))
        return embeddings

    def condition(self, ids: Tensor, mask: Tensor, pictures: Patches | None = None) -> Tensor:
        """Final-norm hidden states (B, Q, H) at the queries behind the prompt (left-padded ids (B, T)), causal.

        The published code passes a mask one short and works for one prompt only (quirk Q1); this one is whole.
        """
        self.check_length(ids.shape[1] + self.config.num_queries)
        queries = self.queries.to(self.language.dtype).expand(len(ids), -1, -1)
        embeddings = torch.cat([self.embed(ids, pictures), queries], dim=1)  # (B, T + Q, H)
        full = torch.cat([mask, mask.new_ones(queries.shape[:2])], dim=1)
        return self.states(embeddings, full)[:, -queries.shape[1] :]

    def states(self, embeddings: Tensor, mask: Tensor, places: Tensor | None = None) -> Tensor:
        """Final-norm hidden states (B, T, H) with plain positions, as drawing reads them."""
        places = positions(mask) if places is None else places
        out = self.language.model.language_model(
            inputs_embeds=embeddings, attention_mask=mask, position_ids=places, use_cache=False
        )
        return out.last_hidden_state

    # ------------------------------------------------------------------ answering

    def shown(self, ids: Tensor, mask: Tensor, pictures: Patches | None) -> dict:
        """Inputs of transformers' own calls, which make image-aware positions from them."""
        self.language.model.rope_deltas = None  # footgun: it remembers the positions of the call before
        given = {"input_ids": ids, "attention_mask": mask}
        if pictures is not None:
            # footgun: without the token types it silently falls back to plain positions
            given["mm_token_type_ids"] = (ids == self.image_pad).int()
            given |= {"pixel_values": pictures.values, "image_grid_thw": pictures.grid}
        return given

    def hidden_states(self, ids: Tensor, mask: Tensor, pictures: Patches | None = None) -> Tensor:
        """Final-norm hidden states (B, T, H) of left-padded ids, as answering reads them."""
        given = self.shown(ids, mask, pictures)
        if pictures is None:
            given["position_ids"] = positions(mask)
        return self.language.model(**given, use_cache=False).last_hidden_state

    def logits(self, hidden_states: Tensor) -> Tensor:
        """Next-token logits (…, V)."""
        return self.language.lm_head(hidden_states)

    @torch.no_grad()
    def write(
        self, ids: Tensor, mask: Tensor, pictures: Patches | None = None, *, most: int = 256, stop: int | None = None
    ) -> Tensor:
        """Answer greedily: new ids (B, up to `most`), ended by the end of the turn (or `stop`), padded behind it."""
        self.check_length(ids.shape[1] + 1)
        ends = [self.end, self.pad, stop]  # of the turn, of the text, and what the caller waits for
        written = self.language.generate(
            **self.shown(ids, mask, pictures), do_sample=False, pad_token_id=self.pad,
            eos_token_id=[token for token in ends if token is not None],
            max_new_tokens=min(most, self.config.context - ids.shape[1]),
        )  # fmt: skip
        return written[:, ids.shape[1] :]

    def check_length(self, length: int) -> None:
        """Raise ValueError when a sequence does not fit the context."""
        if length > self.config.context:
            raise ValueError(
                f"the conversation needs {length} tokens but the context holds {self.config.context}; "
                f"shorten it by {length - self.config.context} tokens"
            )
