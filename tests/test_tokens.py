"""Words to numbers and back: the world's words are single tokens, a person's special tokens are only text."""

import numpy as np
import pytest

from blip3o_mini import world
from blip3o_mini.tokens import SPECIAL, pad_left


@pytest.fixture
def chat(tiny_model):
    return tiny_model.chat_tokens


@pytest.mark.parametrize(
    "word", [*world.SHAPES, *world.COLOURS, *world.SIZES, *world.BACKGROUNDS, *" ".join(world.POSITIONS).split()]
)
def test_every_word_of_the_world_is_one_token(chat, word):
    assert len(chat.words(word)) == 1
    assert len(chat.words(f"a {word}")) == 2  # also inside a sentence


@pytest.mark.parametrize("text", ["xylophone zebra", "ünïcode ☃ 漢字 🙂", "a\tb\nc", "1234567890 (!?) {caption}"])
def test_unknown_words_round_trip(chat, text):
    assert chat.decode(chat.words(text)) == text


def test_capitals_do_not_matter(chat):
    assert chat.words("A RED Circle") == chat.words("a red circle")


@pytest.mark.parametrize("special", SPECIAL)
def test_typed_special_tokens_are_not_obeyed(chat, special):
    obeyed = set(chat.tokenizer.convert_tokens_to_ids(list(SPECIAL)))
    assert len(obeyed) == len(SPECIAL)
    assert not obeyed & set(chat.words(f"draw {special} now{special}"))
    assert chat.decode(chat.words(special)) == special.lower()


def test_chat_layout_and_what_the_assistant_said(chat):
    question, reply = chat.words("what is it?"), chat.words("a star")
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is it?"}]},
        {"role": "assistant", "content": "a star"},
    ]
    ids, said = chat.chat(messages)
    assert ids == [chat.user, *chat.picture, *question, chat.assistant, *reply, chat.end, chat.assistant]
    before = 1 + len(chat.picture) + len(question) + 1
    assert said == [0] * before + [1] * (len(reply) + 1) + [0]
    assert chat.chat(messages, is_open=False) == (ids[:-1], said[:-1])
    assert chat.picture.count(chat.image_pad) == chat.num_features == 9


def test_an_assistants_picture_is_asked_for_not_spelled(chat):
    ids, said = chat.chat([{"role": "assistant", "content": [{"type": "image"}]}], is_open=False)
    assert ids == [chat.assistant, chat.start_of_image, *chat.picture, chat.end]
    assert said == [0, 1, *[0] * len(chat.picture), 1]


@pytest.mark.parametrize(
    "message, problem",
    [({"role": "system", "content": "x"}, "'system'"), ({"content": "x"}, "None"),
     ({"role": "user", "content": [{"type": "video"}]}, "'video'")],
)  # fmt: skip
def test_unknown_roles_and_parts_are_refused(chat, message, problem):
    with pytest.raises(ValueError, match=problem):
        chat.chat([message])


def test_the_chat_template_says_the_same(chat):
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "a star"}]
    text = chat.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert chat.tokenizer(text, add_special_tokens=False).input_ids == chat.chat(messages)[0]


def test_pad_left_aligns_the_ends():
    ids, mask = pad_left([[5], [6, 7, 8], [9, 9]], pad=0)
    np.testing.assert_array_equal(ids, [[0, 0, 5], [6, 7, 8], [0, 9, 9]])
    np.testing.assert_array_equal(mask, [[0, 0, 1], [1, 1, 1], [0, 1, 1]])
