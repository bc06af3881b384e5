"""A stand-in for the model: the same doors, with small sums in float64 behind them, so that a check takes no time.

Every input has its say in the result, so that a slip anywhere on the way changes the answer. Lesson 06.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import tokens
from ..config import preset


class StandIn:
    """Reads, conditions, predicts velocities, decodes and says words, all by formulas without weights."""

    config = preset("tiny")
    noise_shape = (3, 4, 4)
    end, pad = 5, 0

    def __init__(self):
        self.backbone = self.decoder = self

    def rows(self, talks: list, pictures: Tensor | None = None, *, is_drawing: bool = False) -> tuple[Tensor, Tensor]:
        texts = [f"{talk[-1]['role']} {talk[-1]['content']}{'!' * is_drawing}" for talk in talks]
        letters = [[1 + ord(letter) % 89 for letter in text] for text in texts]
        return tuple(torch.from_numpy(array) for array in tokens.pad_left(letters, self.pad))

    def hidden_states(self, ids: Tensor, mask: Tensor, features: Tensor | None = None) -> Tensor:
        """Causal: a fading sum of what stands before, (B, T, 1); padding adds nothing."""
        state, states = torch.zeros(len(ids), dtype=torch.float64), []
        state = state if features is None else state + features.flatten(1).sum(1)
        for column, seen in zip(ids.T, mask.T):
            state = torch.where(seen.bool(), 0.7 * state + torch.sin(column.double() + 1), state)
            states.append(state)
        return torch.stack(states, 1)[..., None]

    def logits(self, hidden_states: Tensor) -> Tensor:
        return torch.sin(37 * hidden_states * torch.arange(1, 7) + torch.arange(6) ** 2)

    def condition(self, ids: Tensor, mask: Tensor, features: Tensor | None = None) -> Tensor:
        last = self.hidden_states(ids, mask, features)[:, -1:]  # (B, 1, 1)
        queries, width = torch.arange(9)[:, None], torch.arange(self.config.backbone.width)
        return torch.sin(3 * last + queries + 0.3 * width)

    def dit(self, x: Tensor, timestep: Tensor, condition: Tensor, *, source: Tensor | None = None) -> Tensor:
        late = torch.as_tensor(timestep, dtype=torch.float64) / 1000
        told = torch.tanh(condition[..., : x.shape[2]] + condition.mean(1, keepdim=True)[..., : x.shape[2]])
        return 0.6 * x + told * (0.2 + late) - 0.1 * x.flip(1) * late**2

    def decode(self, features: Tensor, noise: Tensor, steps: int | None = None) -> Tensor:
        return torch.sigmoid(noise + features.mean((1, 2))[:, None, None, None])
