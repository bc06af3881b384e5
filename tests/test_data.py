"""Shards and batches: what is written is read back, damage is named, nothing held out slips in."""

import numpy as np
import pytest
import torch

from blip3o_mini import data, world
from blip3o_mini.cli import main
from blip3o_mini.data import Pool, batches
from blip3o_mini.tokens import ChatTokens, train_tokenizer


@pytest.fixture(scope="module")
def chat():
    return ChatTokens(train_tokenizer(1024), 9)


@pytest.fixture(scope="module")
def pool():
    made = Pool(150, 0)
    made.features = torch.randn(150, 9, 48, generator=torch.Generator().manual_seed(0))
    made.after_features = made.features + 1
    return made


def test_shards_come_back_and_repeat(tmp_path):
    for name in ("a", "b"):
        data.build(tmp_path / name, count=25, seed=3, shard_size=10)
    assert [p.read_bytes() for p in sorted((tmp_path / "a").glob("*.tar"))] == [
        p.read_bytes() for p in sorted((tmp_path / "b").glob("*.tar"))
    ]
    source = data.find(tmp_path / "a")
    found = list(data.Stream(data.Recipe((source,), passes=1), report=pytest.fail))
    assert len(found) == 25 and len({sample.key for sample in found}) == 25
    assert all(sample.image.size == (72, 72) and sample.caption for sample in found)
    assert "no problems found" in data.inspect([source])


def test_a_truncated_shard_is_noticed(tmp_path):
    data.build(tmp_path, count=12, seed=0)
    shard = tmp_path / "000000.tar"
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    report = data.inspect([data.find(tmp_path)])
    assert "has changed" in report and "of 12 samples are missing" in report


def test_the_commands_build_and_inspect(tmp_path, capsys):
    out, sheet = tmp_path / "shards", tmp_path / "sheet.png"
    assert main(["data", "build", "--out", str(out), "--count", "6"]) == 0
    assert main(["data", "inspect", str(out), "--sheet", str(sheet)]) == 0
    assert "6 readable samples" in capsys.readouterr().out and sheet.exists()
    assert main(["data", "build", "--out", str(out), "--count", "6"]) == 2  # never over existing shards


def test_batches_are_functions_of_their_generator(pool, chat):
    for make in (batches.conversation_batch, batches.drawing_batch):
        one, two = (make(np.random.default_rng(5), pool, chat, 16) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(one, two))


def test_conversations_fit_and_carry_their_pictures(pool, chat):
    batch = batches.conversation_batch(np.random.default_rng(1), pool, chat, 200)
    assert batch.ids.shape[1] <= batches.LONGEST
    assert bool((batch.ids[:, -1] == chat.end).all())
    assert int((batch.ids == chat.image_pad).sum()) == 9 * len(batch.features)
    assert int((batch.said * (batch.ids == chat.image_pad)).sum()) == 0  # pictures are never spelled


def test_no_text_of_training_names_a_held_out_pair(pool, chat):
    rng = np.random.default_rng(2)
    texts = []
    for make in (batches.conversation_batch, batches.drawing_batch):
        batch = make(rng, pool, chat, 700)
        texts += chat.tokenizer.batch_decode(batch.ids)
    for shape, colour in world.HELDOUT_PAIRS:
        assert not any(f"{colour} {shape}" in text for text in texts), (shape, colour)
    assert not any(world.is_heldout(scene) for scene in (*pool.scenes, *pool.after))
