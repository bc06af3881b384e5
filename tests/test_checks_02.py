"""Lesson 02's checks name the mistake of answers that were written apart from the slips they hold."""

import pytest
import torch

from blip3o_mini.checks import nb02_backbone as check
from blip3o_mini.checks.exercise import Exercise

EXERCISES = [one for one in vars(check).values() if isinstance(one, Exercise)]


def spoken(closed=("assistant",), picture="<|vision_start|><|image_pad|><|vision_end|>", between="", asked=None):
    """The template written with a list of pieces, with one thing wrong at a time."""

    def render(messages, is_open=True):
        pieces = []
        for message in messages:
            content = message["content"]
            pieces.append("<|" + message["role"] + "|>")
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            pieces += [part["text"] if part["type"] == "text" else picture for part in parts]
            if message["role"] in closed:
                pieces.append("<|im_end|>")
            pieces.append(between)
        return "".join(pieces) + ("<|assistant|>" if (is_open if asked is None else asked) else "")

    return render


def turned(direction=1, first=0, divisor=1.0, even=False):
    """Rotation by complex numbers."""

    def rotate(x, positions, theta):
        half = x.shape[-1] // 2
        pairs = x.unflatten(-1, (half, 2)) if even else torch.stack([x[..., :half], x[..., half:]], -1)
        speeds = torch.tensor([theta ** (-i / (half * divisor)) for i in range(half)]).to(x)
        angle = direction * torch.outer(positions.to(x) + first, speeds)
        done = torch.view_as_complex(pairs.contiguous()) * torch.polar(torch.ones_like(angle), angle)
        return torch.view_as_real(done).flatten(-2) if even else torch.cat([done.real, done.imag], -1)

    return rotate


def looked(hide="later", scale=lambda w: w**-0.5, order="together", over="keys"):
    """Attention written head by head and row by row."""

    def attend(q, k, v):
        heads, (length, total) = q.shape[1], (q.shape[2], k.shape[2])
        of = [h // (heads // k.shape[1]) if order == "together" else h % k.shape[1] for h in range(heads)]
        scores = torch.einsum("bhtw,bhsw->bhts", q, k[:, of]) * scale(q.shape[-1])
        for t in range(length):
            here = t if hide == "corner" else total - length + t
            begin = {"later": here + 1, "corner": here + 1, "self": here, "nothing": total}[hide]
            scores[..., t, begin:] = -torch.inf
        shares = torch.softmax(scores, 3 if over == "keys" else 2)
        return torch.einsum("bhts,bhsw->bhtw", shares, v[:, of]), shares

    return attend


def filled(pick=lambda features: features, is_added=False):
    def place(embeddings, is_image, features):
        out = embeddings.clone()
        rows = pick(features).reshape(-1, features.shape[-1])
        out[is_image] = out[is_image] + rows if is_added else rows
        return out

    return place


def columns(features):
    return features.reshape(-1, 3, 3, features.shape[-1]).permute(0, 2, 1, 3)


def whole(run, *parts):
    size = max(len(part) for part in parts)
    return run(torch.hstack([part.repeat(size // len(part), 1, 1) for part in parts]))


PLANTED = [
    (check.render, spoken(closed=()), "never learns when to stop"),
    (check.render, spoken(closed=("assistant", "user")), "as in Qwen's own template"),
    (check.render, spoken(asked=False), "is_open has no effect"),
    (check.render, spoken(asked=True), "with is_open=False none"),
    (check.render, spoken(picture=""), "pictures leave no trace"),
    (check.render, spoken(between="\n"), "line breaks"),
    (check.render, lambda messages, is_open: [message["role"] for message in messages], "got ['user']"),
    (check.rotate, turned(even=True), "you pair neighbours"),
    (check.rotate, turned(direction=-1), "the other way round"),
    (check.rotate, turned(first=1), "one too high"),
    (check.rotate, turned(divisor=2), "half as fast"),
    (check.rotate, turned(divisor=float("inf")), "the same speed"),
    (check.rotate, lambda x, positions, theta: x[..., : x.shape[-1] // 2], "in the shape"),
    (check.attend, looked(hide="nothing"), "sees the future"),
    (check.attend, looked(hide="corner"), "wrong corner"),
    (check.attend, looked(hide="self"), "does not see itself"),
    (check.attend, looked(scale=lambda w: 1.0), "not divided by √W"),
    (check.attend, looked(scale=lambda w: 1 / w), "you divide by W"),
    (check.attend, looked(order="apart"), "groups are mixed up"),
    (check.attend, looked(over="rows"), "wrong axis"),
    (check.attend, lambda q, k, v: looked()(q, k, v)[0], "number of results"),
    (check.place, filled(is_added=True), "are added"),
    (check.place, filled(lambda f: f[:1].repeat(len(f), 1, 1)), "the first one"),
    (check.place, filled(columns), "column by column"),
    (check.place, filled(lambda f: f.flip(0)), "reverse order"),
    (check.place, lambda e, m, f: e.clone(), "unchanged"),
    (check.read_out, lambda run, p, q: whole(run, q, p)[:, : q.shape[1]], "cannot see a word"),
    (check.read_out, lambda run, p, q: whole(run, q, p)[:, -q.shape[1] :], "you read at the last words. Put"),
    (check.read_out, lambda run, p, q: whole(run, p)[:, -q.shape[1] :], "queries have no say"),
    (check.read_out, lambda run, p, q: whole(run, p, q)[:, : q.shape[1]], "belong to the prompt"),
    (check.read_out, lambda run, p, q: whole(run, p, q)[:, -1:], "only the last query"),
    (check.read_out, lambda run, p, q: torch.hstack([whole(run, p, q[:, [k]])[:, -1:] for k in range(q.shape[1])]),
     "alone behind the prompt"),
]  # fmt: skip


@pytest.mark.parametrize(("exercise", "answer", "words"), PLANTED)
def test_a_planted_mistake_is_named(exercise, answer, words):
    is_right, report = exercise.judge(answer)
    assert not is_right and words in report, report


def test_every_exercise_has_three_planted_mistakes_with_different_reports():
    assert len(EXERCISES) == 5
    for exercise in EXERCISES:
        reports = [one.judge(answer)[1] for one, answer, _ in PLANTED if one is exercise]
        assert len(reports) >= 3 and len(set(reports)) == len(reports)


RIGHT = [
    (check.render, spoken()),
    (check.rotate, turned()),
    (check.attend, looked()),
    (check.place, filled()),
    (check.read_out, lambda run, p, q: whole(run, p, q)[:, p.shape[1] :]),
]


@pytest.mark.parametrize(("exercise", "answer"), RIGHT, ids=lambda value: getattr(value, "name", ""))
def test_right_answers_in_other_words_pass(exercise, answer):
    is_right, report = exercise.judge(answer)
    assert is_right, report


def test_the_right_answers_are_the_packages(tiny_model):
    """What the checks call right is what tokenizer and backbone do."""
    chat, backbone = tiny_model.chat_tokens, tiny_model.backbone
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is it?"}]}]
    text = chat.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert check.by_template(messages, True) == text
    ids = torch.tensor([chat.chat(messages)[0]])
    features = torch.randn(1, chat.num_features, tiny_model.config.vision.feature_width)
    table = backbone.language.get_input_embeddings()(ids)
    with torch.no_grad():
        cells = backbone.image_projector(features) + backbone.image_positions
        assert torch.equal(check.placed(table, ids == backbone.image_pad, cells), backbone.embed(ids, features))
        mask = torch.ones_like(ids)

        def run(embeddings):
            return backbone.language.model(inputs_embeds=embeddings).last_hidden_state

        read = check.read_behind(run, backbone.embed(ids, features), backbone.queries)
        # float32, one pass against two
        torch.testing.assert_close(read, backbone.condition(ids, mask, features), rtol=1e-4, atol=1e-5)
