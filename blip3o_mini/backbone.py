"""Messages → text, and messages → condition: the autoregressive transformer and its learnable queries.

Features of a picture enter as tokens through a small projector. To draw, Q learnable vectors follow
the prompt and `[IMG]`; attention stays causal, and the final-norm hidden states at the queries are
the condition (B, Q, H) that the DiT reads (paper section 3; reference section 1.3). Lesson 02.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .config import BackboneConfig
from .tokens import ChatTokens


class Backbone(nn.Module):
    """A Qwen2 decoder from transformers, an image projector, and the queries."""

    def __init__(self, config: BackboneConfig, feature_width: int, tokens: ChatTokens):
        super().__init__()
        from transformers import Qwen2Config, Qwen2ForCausalLM

        self.config, self.image_pad, self.end = config, tokens.image_pad, tokens.end
        self.language = Qwen2ForCausalLM(
            Qwen2Config(
                vocab_size=config.vocabulary, hidden_size=config.width, intermediate_size=config.ffn_width,
                num_hidden_layers=config.layers, num_attention_heads=config.heads,
                num_key_value_heads=config.kv_heads, max_position_embeddings=config.context,
                tie_word_embeddings=config.is_tied, bos_token_id=None, eos_token_id=tokens.end, pad_token_id=tokens.pad,
                rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            )
        )  # fmt: skip
        # linear: colour and shape stay apart on the way in, also in pairs that training never showed
        self.image_projector = nn.Linear(feature_width, config.width)
        if config.image_positions:
            # a small model cannot count tokens well enough to tell in which cell of the picture it looks
            self.image_positions = nn.Parameter(0.2 * torch.randn(config.image_positions, config.width))
        self.queries = nn.Parameter(config.query_std * torch.randn(1, config.num_queries, config.width))

    def embed(self, ids: Tensor, features: Tensor | None = None) -> Tensor:
        """Embeddings (B, T, H) of ids (B, T); the i-th image placeholder takes the i-th row of features."""
        embeddings = self.language.get_input_embeddings()(ids)
        is_image = ids == self.image_pad
        count = 0 if features is None else features.flatten(0, -2).shape[0]
        if int(is_image.sum()) != count:
            raise ValueError(f"the messages hold {int(is_image.sum())} image tokens but {count} features were given")
        if count:
            projected = self.image_projector(features)  # (pictures, Q, H)
            if self.config.image_positions:
                projected = projected + self.image_positions
            embeddings = embeddings.masked_scatter(is_image.unsqueeze(-1), projected.to(embeddings.dtype))
        return embeddings

    def hidden_states(self, ids: Tensor, mask: Tensor, features: Tensor | None = None) -> Tensor:
        """Final-norm hidden states (B, T, H) of left-padded ids."""
        return self.language.model(
            inputs_embeds=self.embed(ids, features), attention_mask=mask, position_ids=positions(mask)
        ).last_hidden_state

    def logits(self, hidden_states: Tensor) -> Tensor:
        """Next-token logits (…, V)."""
        return self.language.lm_head(hidden_states)

    def condition(self, ids: Tensor, mask: Tensor, features: Tensor | None = None) -> Tensor:
        """Hidden states (B, Q, H) at the queries that follow the prompt (left-padded ids (B, T)).

        The prompt stands before the queries and attention is causal, so its keys and values do not depend
        on them. While the language model is frozen, that pass records no gradient: only the queries' does.
        """
        batch, length = ids.shape
        self.check_length(length + self.config.num_queries)
        learns = any(p.requires_grad for p in self.language.parameters())
        with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
            prompt = self.language.model(
                inputs_embeds=self.embed(ids, features), attention_mask=mask, position_ids=positions(mask),
                use_cache=True,
            )  # fmt: skip
        full = torch.cat([mask, mask.new_ones(batch, self.config.num_queries)], dim=1)  # (B, T + Q)
        out = self.language.model(
            inputs_embeds=self.queries.expand(batch, -1, -1), attention_mask=full,
            position_ids=positions(full)[:, length:], past_key_values=prompt.past_key_values, use_cache=True,
        )  # fmt: skip
        return out.last_hidden_state  # (B, Q, H), after the final norm

    @torch.no_grad()
    def write(
        self, ids: Tensor, mask: Tensor, features: Tensor | None = None, *, most: int = 80, stop: int | None = None
    ) -> Tensor:
        """Answer greedily: new ids (B, up to `most`), ended by the end token (or `stop`), padded behind it."""
        self.check_length(ids.shape[1] + 1)
        return self.language.generate(
            inputs_embeds=self.embed(ids, features), attention_mask=mask, do_sample=False,
            eos_token_id=[self.end] if stop is None else [self.end, stop],
            max_new_tokens=min(most, self.config.context - ids.shape[1]),
        )  # fmt: skip

    def check_length(self, length: int) -> None:
        """Raise ValueError when a sequence does not fit the context."""
        if length > self.config.context:
            raise ValueError(
                f"the prompt needs {length} tokens (queries included) but the context holds "
                f"{self.config.context}; shorten it by {length - self.config.context} tokens"
            )


def positions(mask: Tensor) -> Tensor:
    """Plain positions 0, 1, 2, … from each row's first real token (B, T)."""
    return (mask.cumsum(1) - 1).clamp_min(0)
