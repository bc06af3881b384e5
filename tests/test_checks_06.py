"""The checks of lesson 06 accept right answers written in other ways, and name what is wrong with others."""

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from blip3o_mini import flow
from blip3o_mini.checks import nb06_model as check
from blip3o_mini.checks.stand_in import StandIn

EXERCISES = {e.name: e for e in (check.align, check.places, check.noise, check.generate, check.write)}


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_every_slip_is_named_by_its_own_sentence(exercise, capsys):
    assert len(exercise.slips) >= 3 and len({slip.says for slip in exercise.slips}) == len(exercise.slips)
    for slip in exercise.slips:
        assert exercise(slip.wrong) is False
        assert capsys.readouterr().out.startswith(f"✘ {exercise.number} {exercise.name} — {slip.says}")


# Right answers written in another way than the check's own.


def aligned_by_torch(rows, pad):
    rows = [torch.tensor(row) for row in rows]
    ids = pad_sequence(rows, batch_first=True, padding_value=pad, padding_side="left")
    return ids, pad_sequence([torch.ones_like(r) for r in rows], batch_first=True, padding_side="left")


def counted_by_hand(mask, num_queries):
    full = torch.tensor([[*row, *[1] * num_queries] for row in mask.tolist()])
    return full, torch.tensor([[sum(row) + k for k in range(num_queries)] for row in mask.tolist()])


def drawn_one_by_one(shape, generators, like):
    return torch.cat([torch.randn(1, *shape, generator=g) for g in generators]).to(like)


def generated_one_by_one(model, prompts, num_images, seed, steps, guidance):
    made = []
    for prompt in prompts:
        rows = model.rows([[{"role": "user", "content": "draw " + prompt}]], is_drawing=True)
        condition = model.backbone.condition(*rows)
        for k in range(num_images):
            tape = torch.Generator().manual_seed(seed + k)
            x = torch.randn(1, 9, 20, generator=tape).double()
            for step in range(steps):
                told = 1000 * (1 - step / steps)
                null = model.dit(x, told, 0 * condition)
                x = x - (null + guidance * (model.dit(x, told, condition) - null)) / steps
            made.append(model.decoder.decode(x, torch.randn(1, *model.decoder.noise_shape, generator=tape)))
    return torch.cat(made)


def written_row_by_row(backbone, ids, mask, features, pad, most):
    rows = []
    for k in range(len(ids)):
        row, said = ids[k : k + 1][:, mask[k].bool()], []
        while len(said) < most and backbone.end not in said:
            one = None if features is None else features[k : k + 1]
            states = backbone.hidden_states(row, torch.ones_like(row), one)
            said.append(int(backbone.logits(states)[0, -1].argmax()))
            row = torch.cat([row, torch.tensor([said[-1:]])], 1)
        rows.append(said)
    longest = max(map(len, rows))
    return torch.tensor([row + [pad] * (longest - len(row)) for row in rows])


@pytest.mark.parametrize(
    ("name", "learner"),
    [("align", aligned_by_torch), ("places", counted_by_hand), ("noise", drawn_one_by_one),
     ("generate", generated_one_by_one), ("write", written_row_by_row)],
)  # fmt: skip
def test_other_ways_to_write_it_pass(name, learner):
    is_right, report = EXERCISES[name].judge(learner)
    assert is_right, report


def test_one_part_of_two_is_not_enough():
    is_right, report = check.align.judge(lambda rows, pad: check.align.right(rows, pad)[0])
    assert not is_right and "number of results" in report


# Wrong answers as a student would write them, each with what the report must name.


def aligned(rows, pad, side="left", mask=None):
    ids, seen = (
        pad_sequence([torch.tensor(x) for x in some], batch_first=True, padding_value=value, padding_side=side)
        for some, value in ((rows, pad), ([[1] * len(row) for row in rows], 0))
    )
    return ids, seen if mask is None else mask(ids, seen)


def placed(mask, num_queries, first=None, hides=False):
    more = torch.zeros if hides else torch.ones
    full = torch.cat([mask, more(len(mask), num_queries, dtype=mask.dtype)], 1)
    start = mask.sum(1, keepdim=True) if first is None else torch.full((len(mask), 1), first(mask))
    return full, start + torch.arange(num_queries)


def generated(model, prompts, n, seed, steps, guidance, *, text="draw {}", tile=False, first=None, again=False):
    rows = model.rows([[{"role": "user", "content": text.format(p)}] for p in prompts], is_drawing=True)
    condition = model.backbone.condition(*rows)
    condition = condition.repeat(n, 1, 1) if tile else condition.repeat_interleave(n, 0)
    seeds = [seed + (k % n if first is None else first(k)) for k in range(len(condition))]
    tapes = [torch.Generator().manual_seed(s) for s in seeds]
    x = torch.stack([torch.randn(9, 20, generator=tape) for tape in tapes]).double()
    *_, features = flow.euler(flow.guided(model.dit, condition, guidance), x, flow.sigmas(steps))
    if again:
        tapes = [torch.Generator().manual_seed(s) for s in seeds]
    grain = torch.stack([torch.randn(model.decoder.noise_shape, generator=tape) for tape in tapes])
    return model.decoder.decode(features, grain.double())


def written(backbone, ids, mask, features, pad, most, *, shows=True, fills=True):
    done, said = torch.zeros(len(ids), dtype=torch.bool), []
    while len(said) < most and not done.all():
        states = backbone.hidden_states(ids, mask, features if shows else None)
        word = backbone.logits(states[:, -1:]).argmax(-1)[:, 0]
        if fills:
            word[done] = pad
        done |= word == backbone.end
        said.append(word)
        ids, mask = torch.cat([ids, word[:, None]], 1), torch.cat([mask, torch.ones(len(ids), 1).long()], 1)
    return torch.stack(said, 1)


PLANTED = [
    ("align", lambda rows, pad: aligned(rows, pad, "right"), "pad in front"),
    ("align", lambda rows, pad: aligned(rows, pad, mask=lambda ids, seen: (ids != pad).long()), "also be a word"),
    ("align", lambda rows, pad: aligned(rows, pad, mask=lambda ids, seen: torch.ones_like(ids)), "1 everywhere"),
    ("align", lambda rows, pad: aligned(rows, pad, mask=lambda ids, seen: (seen == 0).long()), "upside down"),
    ("places", lambda mask, q: placed(mask, q, lambda m: 0), "start again at place 0"),
    ("places", lambda mask, q: placed(mask, q, lambda m: m.shape[1]), "padding is counted too"),
    ("places", lambda mask, q: placed(mask, q, hides=True), "hides the queries"),
    ("noise", lambda shape, tapes, like: torch.randn(len(tapes), *shape, generator=tapes[0]).to(like), "draws for all"),
    ("noise", lambda shape, tapes, like: torch.stack([torch.rand(shape, generator=g) for g in tapes]), "uniform"),
    ("noise", lambda shape, tapes, like: torch.randn(shape, generator=tapes[0]).repeat(len(tapes), *[1] * len(shape)),
     "same noise"),
    ("generate", lambda *case: generated(*case, tile=True), "repeat_interleave"),
    ("generate", lambda *case: generated(*case, first=lambda k: k), "whole batch"),
    ("generate", lambda *case: generated(*case, first=lambda k: 0), "same seed"),
    ("generate", lambda *case: generated(*case, again=True), "made anew"),
    ("generate", lambda *case: generated(*case, text="{}"), "request is missing"),
    ("generate", lambda *case: generated(*case[:5], 1), "guidance is left out"),
    ("write", lambda *case: written(*case, shows=False), "not shown the pictures"),
    ("write", lambda *case: written(*case, fills=False), "go on talking"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "learner", "named"), PLANTED, ids=[f"{n}: {named}" for n, _, named in PLANTED])
def test_planted_mistakes_are_named(name, learner, named):
    is_right, report = EXERCISES[name].judge(learner)
    assert not is_right and report.startswith("✘") and named in report, report


# What the exercises ask for is what the package's model does.


def test_the_walk_is_that_of_the_model(tiny_model):
    """The check's own answers on a real model: the same bits as `generate` and the same words as `write`."""
    import numpy as np

    prompts = ["a red circle", "a large blue star to the left of a small green heart"]
    with torch.no_grad():
        made = check.generate.right(tiny_model, prompts, 2, 3, 2, 3.0)
    ours = (made * 255).round().byte().permute(0, 2, 3, 1).numpy()
    theirs = tiny_model.generate(prompts, num_images=2, seed=3, steps=2, guidance_scale=3.0)
    assert all(np.array_equal(mine, image) for mine, image in zip(ours, theirs, strict=True))

    backbone, pad = tiny_model.backbone, tiny_model.chat_tokens.pad
    ids, mask = tiny_model.rows([[{"role": "user", "content": text}] for text in prompts])
    with torch.no_grad():
        said = check.write.right(backbone, ids, mask, None, pad, 6)
    assert torch.equal(said, backbone.write(ids, mask, most=6))


def test_the_places_are_those_of_the_backbone(tiny_model):
    backbone, prompts = tiny_model.backbone, ["draw a star", "draw a red circle above a blue square"]
    ids, mask = tiny_model.rows([[{"role": "user", "content": text}] for text in prompts], is_drawing=True)
    full, places = check.places.right(mask, backbone.config.num_queries)
    where = torch.cat([(mask.cumsum(1) - 1).clamp_min(0), places], 1)
    both = torch.cat([backbone.embed(ids), backbone.queries.expand(len(ids), -1, -1)], 1)
    with torch.no_grad():
        out = backbone.language.model(inputs_embeds=both, attention_mask=full, position_ids=where).last_hidden_state
        theirs = backbone.condition(ids, mask)
    torch.testing.assert_close(out[:, ids.shape[1] :], theirs, rtol=1e-4, atol=1e-4)  # one pass instead of two


def test_the_stand_in_sees_all_its_inputs():
    """A slip can only be told when every input has its say."""
    model = StandIn()
    ids, mask = model.rows([[{"role": "user", "content": "draw a star"}], [{"role": "user", "content": "hi"}]])
    condition = model.condition(ids, mask)
    assert not torch.allclose(condition, model.condition(ids, torch.ones_like(mask)))
    assert torch.allclose(condition[1:], model.condition(ids[1:, mask[1].bool()], mask[1:, mask[1].bool()]))
    x = torch.randn(2, 9, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    velocity = model.dit(x, torch.tensor(500.0), condition)
    for other in (model.dit(x, torch.tensor(5.0), condition), model.dit(x, torch.tensor(500.0), 0 * condition)):
        assert not torch.allclose(velocity, other)
