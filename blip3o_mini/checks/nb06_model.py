"""Checks of lesson 06: rows of one length, the queries' mask and places, noise of one's own, drawing and answering."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import backbone, flow, sampling, tokens
from .exercise import Exercise, Slip
from .stand_in import StandIn

# ------------------------------------------------------------------ 6.1 align

Rows = list[list[int]]


def _rows() -> list[tuple]:
    """The second holds the padding's number as a word of its own; the last is one row alone."""
    return [([[5, 6, 7], [8], [9, 4]], 0), ([[3, 2, 3], [2, 1]], 2), ([[7, 7], [1, 2, 3, 4, 5]], 9), ([[4, 5]], 1)]


def _align(rows: Rows, pad: int) -> tuple[Tensor, Tensor]:
    return tuple(torch.from_numpy(array) for array in tokens.pad_left(rows, pad))


def _behind(rows: Rows, pad: int) -> tuple[Tensor, Tensor]:
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows])
    return ids, torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])


align = Exercise(
    "6.1", "align", 10, _rows, _align,
    (
        Slip(
            "the padding stands behind the words. The queries come next, and they must follow the last word "
            "directly: pad in front.",
            _behind,
        ),
        Slip(
            "the mask is upside down: 1 marks a word, 0 the padding.",
            lambda rows, pad: (_align(rows, pad)[0], 1 - _align(rows, pad)[1]),
        ),
        Slip(
            "the mask was made by comparing with the padding's number, which may also be a word of the row. Count "
            "from the lengths of the rows.",
            lambda rows, pad: (_align(rows, pad)[0], (_align(rows, pad)[0] != pad).long()),
        ),
        Slip(
            "the mask says 1 everywhere, so padding would be read as words.",
            lambda rows, pad: (_align(rows, pad)[0], torch.ones_like(_align(rows, pad)[0])),
        ),
    ),
)  # fmt: skip


# ------------------------------------------------------------------ 6.2 places


def _masks() -> list[tuple]:
    masks = ([[0, 0, 1, 1], [1, 1, 1, 1]], [[0, 1, 1], [0, 0, 1], [1, 1, 1]], [[1, 1]], [[0, 0, 0, 1, 1]])
    return [(torch.tensor(mask), count) for mask, count in zip(masks, (3, 2, 4, 1))]


def _places(mask: Tensor, num_queries: int) -> tuple[Tensor, Tensor]:
    full = torch.cat([mask, mask.new_ones(len(mask), num_queries)], 1)  # (B, T + Q)
    return full, backbone.positions(full)[:, mask.shape[1] :]


def _placed(change_mask=None, change_places=None):
    """The right answer with one of its two parts changed."""

    def wrong(mask: Tensor, num_queries: int) -> tuple[Tensor, Tensor]:
        full, queries = _places(mask, num_queries)
        full = full if change_mask is None else change_mask(full, mask)
        return full, queries if change_places is None else change_places(queries, mask)

    return wrong


def _run(first: int, like: Tensor) -> Tensor:
    return first + torch.arange(like.shape[1]).expand_as(like)


places = Exercise(
    "6.2", "places", 10, _masks, _places,
    (
        Slip(
            "the queries start again at place 0, among the words. They stand behind the prompt: go on counting.",
            _placed(None, lambda queries, mask: _run(0, queries)),
        ),
        Slip(
            "the padding is counted too: in a short row, a gap opens between the last word and the first query. Let "
            "the mask do the counting.",
            _placed(None, lambda queries, mask: _run(mask.shape[1], queries)),
        ),
        Slip(
            "every query is one place too far. The first word is at 0, so after n words the first query is at n.",
            _placed(None, lambda queries, mask: queries + 1),
        ),
        Slip(
            "all queries stand at one place. Each is a token of its own.",
            _placed(None, lambda queries, mask: queries[:, :1].expand_as(queries)),
        ),
        Slip(
            "the mask hides the queries: a 0 says that nobody may look there, and queries look at each other.",
            _placed(lambda full, mask: torch.cat([mask, full[:, mask.shape[1] :] * 0], 1)),
        ),
        Slip(
            "the padding is no longer hidden. Keep the prompt's mask and put ones behind it.",
            _placed(lambda full, mask: torch.ones_like(full)),
        ),
        Slip(
            "your mask is as long as the prompt. It must reach over the queries as well.",
            _placed(lambda full, mask: mask),
        ),
    ),
)  # fmt: skip


# ------------------------------------------------------------------ 6.3 noise


def _starts() -> list[tuple]:
    seeds = (((2, 3), (0, 1, 2)), ((4,), (7, 7)), ((1, 2), (5,)), ((3, 1), (9, 8, 7, 6)))
    kinds = (torch.float32, torch.float64, torch.float32, torch.float64)
    return [
        (shape, [torch.Generator().manual_seed(seed) for seed in some], torch.zeros(1, dtype=kind))
        for (shape, some), kind in zip(seeds, kinds)
    ]


noise = Exercise(
    "6.3", "noise", 10, _starts, sampling.noise,
    (
        Slip(
            "the first generator draws for all pictures. Then a picture changes when another joins the batch: each "
            "has its own.",
            lambda shape, generators, like: torch.randn(len(generators), *shape, generator=generators[0]),
        ),
        Slip(
            "all pictures start from the same noise. Draw once for each.",
            lambda shape, generators, like: torch.randn(shape, generator=generators[0]).expand(len(generators), *shape),
        ),
        Slip(
            "the generators belong to the pictures in the order given, not in reverse.",
            lambda shape, generators, like: sampling.noise(shape, generators[::-1], like),
        ),
        Slip(
            "the numbers are uniform. The path starts at standard normal noise: `randn`.",
            lambda shape, generators, like: torch.stack([torch.rand(shape, generator=g) for g in generators]),
        ),
        Slip(
            "you made new generators, numbered by place in the batch. Use those you were given, with their seeds.",
            lambda shape, generators, like: sampling.noise(
                shape, [torch.Generator().manual_seed(k) for k in range(len(generators))], like
            ),
        ),
    ),
)  # fmt: skip


# ------------------------------------------------------------------ 6.4 generate


def _wishes() -> list[tuple]:
    """(model, prompts, num_images, seed, steps, guidance)."""
    return [
        (StandIn(), ["a red star", "two blue circles"], 3, 4, 3, 3.0),
        (StandIn(), ["a heart", "a green cross", "a star"], 1, 0, 2, 2.0),
        (StandIn(), ["a pink heart"], 2, 7, 4, 1.0),
    ]


def _generate(
    model, prompts, num_images, seed, steps, guidance, *, word="draw ", is_drawing=True,
    repeat=Tensor.repeat_interleave, seeds=None, is_fresh=False, is_early=False, is_swapped=False,
) -> Tensor:  # fmt: skip
    """The way from prompts to pictures, with any of the usual slips."""
    talks = [[{"role": "user", "content": f"{word}{prompt}"}] for prompt in prompts]
    condition = repeat(model.backbone.condition(*model.rows(talks, is_drawing=is_drawing)), num_images, 0)
    seeds = seeds or (lambda prompt, k: k)
    numbers = [seed + seeds(prompt, k) for prompt in range(len(prompts)) for k in range(num_images)]
    sources = [torch.Generator().manual_seed(number) for number in numbers]
    shapes = ((model.config.vision.num_features, model.config.dit.feature_width), model.decoder.noise_shape)
    if is_early:
        last, first = (sampling.noise(shape, sources, condition) for shape in shapes[::-1])
    else:
        first = sampling.noise(shapes[0], sources, condition)
        if is_fresh:
            sources = [torch.Generator().manual_seed(number) for number in numbers]
        last = sampling.noise(shapes[1], sources, condition)
    velocity = flow.guided(model.dit, condition, guidance)
    if is_swapped:
        velocity = _away(model.dit, condition, guidance)
    *_, features = flow.euler(velocity, first, flow.sigmas(steps))
    return model.decoder.decode(features, last)


def _away(dit, condition: Tensor, guidance: float):
    """Guided away from the prompt: the two halves have changed places."""

    def velocity(x: Tensor, sigma: float) -> Tensor:
        told = flow.timestep(sigma)
        return flow.guide(dit(x, told, condition), dit(x, told, torch.zeros_like(condition)), guidance)

    return velocity


def _tiled(condition: Tensor, count: int, axis: int) -> Tensor:
    return condition.repeat(count, 1, 1)


def _slipped(**slip):
    return lambda *case: _generate(*case, **slip)


generate = Exercise(
    "6.4", "generate", 25, _wishes, _generate,
    (
        Slip(
            "conditions and seeds do not belong together: `repeat` gives a, b, a, b, but the pictures come prompt by "
            "prompt, a, a, b, b. Use `repeat_interleave`.",
            _slipped(repeat=_tiled),
        ),
        Slip(
            "the seeds run on over the whole batch, so a prompt's pictures depend on how many stand before it. Begin "
            "with `seed` again for every prompt.",
            lambda model, prompts, n, *rest: _generate(model, prompts, n, *rest, seeds=lambda p, k: p * n + k),
        ),
        Slip(
            "all pictures of a prompt have the same seed. Picture k gets seed + k.",
            _slipped(seeds=lambda prompt, k: 0),
        ),
        Slip(
            "the decoder's noise repeats the numbers of the first noise: the generators were made anew. Let the same "
            "ones go on.",
            _slipped(is_fresh=True),
        ),
        Slip(
            "the decoder's noise was drawn first. A generator is a tape: the features' noise comes first on it.",
            _slipped(is_early=True),
        ),
        Slip(
            "guidance is left out: the null condition has no say. `flow.guided` takes it as its third argument.",
            lambda model, prompts, n, seed, steps, guidance: _generate(model, prompts, n, seed, steps, 1.0),
        ),
        Slip(
            "prompt and null condition have changed places, so guidance pushes away from the prompt.",
            _slipped(is_swapped=True),
        ),
        Slip(
            "the rows do not end in `[IMG]`, after which the queries are read. Say `is_drawing=True`.",
            _slipped(is_drawing=False),
        ),
        Slip(
            "the request is missing: the model was trained on \"draw …\", not on the bare prompt.",
            _slipped(word=""),
        ),
    ),
)  # fmt: skip


# ------------------------------------------------------------------ 6.5 write


def _questions() -> list[tuple]:
    """(backbone, ids, mask, features, pad, most); rows end after different numbers of words, or not at all."""
    cases = []
    for k, (lengths, most, shown) in enumerate((((3, 7, 5), 9, False), ((4, 2), 6, True), ((6, 3, 2, 5), 4, False))):
        rows = [torch.arange(1, n + 1).mul(3 + k).add(row).remainder(23).tolist() for row, n in enumerate(lengths)]
        features = torch.arange(6.0 * len(lengths)).view(len(lengths), 2, 3).sin() if shown else None
        cases.append((StandIn(), *_align(rows, StandIn.pad), features, StandIn.pad, most))
    return cases


def _write(
    model, ids, mask, features, pad, most, *, place=-1, is_seen=True, is_blind=False, goes_on=False, stop=torch.all,
    keeps_end=True,
) -> Tensor:  # fmt: skip
    """The words that follow, most likely first, with any of the usual slips."""
    length, done = ids.shape[1], torch.zeros(len(ids), dtype=torch.bool)
    for _ in range(most):
        hidden = model.hidden_states(ids, mask, None if is_blind else features)[:, place]
        best = model.logits(hidden).argmax(-1)
        if not goes_on:
            best = best.masked_fill(done, pad)
        done = done | (best == model.end)
        ids = torch.cat([ids, best[:, None]], 1)
        mask = torch.cat([mask, mask.new_full((len(ids), 1), int(is_seen))], 1)
        if stop(done):
            break
    said = ids[:, length:]
    return said if keeps_end else said.masked_fill(said == model.end, pad)


def _wrote(**slip):
    return lambda *case: _write(*case, **slip)


write = Exercise(
    "6.5", "write", 20, _questions, _write,
    (
        Slip(
            "you read the first place of the row. What comes next is said at the last one: `[:, -1]`.",
            _wrote(place=0),
        ),
        Slip(
            "the new words are hidden: the mask got a 0 for each, so the model cannot see what it has said.",
            _wrote(is_seen=False),
        ),
        Slip("the model was not shown the pictures: pass the features at every step.", _wrote(is_blind=True)),
        Slip(
            "rows that are finished go on talking. Behind a row's end token there is only padding.",
            _wrote(goes_on=True),
        ),
        Slip(
            "everybody stops when the first row is finished. Go on until all are.",
            _wrote(stop=torch.any),
        ),
        Slip(
            "the end token is missing. It belongs to the answer: it says that the row ended.",
            _wrote(keeps_end=False),
        ),
    ),
)  # fmt: skip
