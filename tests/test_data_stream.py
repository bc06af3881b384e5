"""Streams meet every sample once, in an order that follows from a few integers, on any number of processes."""

import json
import random
from collections import Counter
from itertools import islice

import pytest
import torch
from made_data import BAD, captions, make_shards, numbered, stream, write_tar
from scipy.stats import binom

from blip3o_mini import data
from blip3o_mini.data import Batches, merge_states, order


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("data") / "shards", [7, 1, 12, 5, 9])  # 34 samples, uneven


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("data") / "other", [20, 20], first=1000)


@pytest.mark.parametrize("shuffle", [0, 1, 4, 1000])
@pytest.mark.parametrize(("world", "lanes"), [(1, 1), (1, 8), (2, 2), (3, 8), (4, 4), (8, 8), (5, 40)])
def test_all_processes_together_meet_every_sample_once_a_pass(source, world, lanes, shuffle):
    parts = [
        captions(stream(source, rank=rank, world=world, lanes=lanes, shuffle=shuffle, passes=2, seed=3))
        for rank in range(world)
    ]
    assert sorted(n for part in parts for n in part) == sorted([*range(34)] * 2)


@pytest.mark.parametrize(("world", "workers"), [(1, 1), (1, 3), (2, 2)])
def test_workers_share_without_overlap_or_loss(source, world, workers):
    parts = [
        captions(stream(source, rank=rank, world=world, workers=workers, lanes=world * workers * 2, passes=1))
        for rank in range(world)
    ]
    assert sorted(n for part in parts for n in part) == [*range(34)]


def test_the_batches_of_a_run_are_the_same_on_any_number_of_processes_and_workers(source):
    runs = {}
    for world, workers in ((1, 0), (2, 0), (4, 0), (8, 0), (1, 2), (2, 2)):
        parts = [
            captions(islice(stream(source, rank=rank, world=world, workers=workers, shuffle=5), 80 // world))
            for rank in range(world)
        ]
        runs[world, workers] = [n for turn in zip(*parts) for n in turn]  # sample s from process s mod world
    assert len({tuple(run) for run in runs.values()}) == 1 and len(runs[1, 0]) == 80


def test_seeds_and_passes_differ_and_repeat(source):
    one, two, again = (captions(stream(source, seed=seed, lanes=2, passes=2)) for seed in (0, 1, 0))
    assert one == again != two
    assert captions(stream(source, lanes=1, shuffle=0, passes=1)) == [*range(34)]
    walked = captions(stream(source, lanes=1, passes=2))
    assert walked[:34] != walked[34:] and sorted(walked[:34]) == sorted(walked[34:])


@pytest.mark.parametrize("options", [{"shuffle": 4}, {"shuffle": 0, "lanes": 3}, {"passes": 2}, {"lanes": 40}])
def test_resumed_anywhere_equals_uninterrupted(source, other, options):
    made = {"weights": (3.0, 1.0), "seed": 5, **options}
    whole = captions(islice(stream(source, other, **made), 200))
    for stop in random.Random(0).sample(range(len(whole)), 25):
        first = stream(source, other, **made)
        begun = captions(islice(first, stop))
        second = stream(source, other, **made)
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert begun + captions(islice(second, 200 - stop)) == whole, stop


def test_resumed_with_workers_equals_uninterrupted(source):
    whole = captions(islice(stream(source, shuffle=3), 120))
    state, found = None, []
    for workers in (2, 0, 4):  # three interruptions, each time another number of workers
        part = stream(source, shuffle=3, workers=workers)
        if state:
            part.load_state_dict(state)
        found += captions(islice(part, 37))
        state = part.state_dict()
    assert found == whole[:111]


def test_a_state_of_two_processes_continues_on_one_and_on_three(source):
    whole = captions(islice(stream(source, shuffle=3, lanes=12), 120))
    parts = [stream(source, shuffle=3, lanes=12, rank=rank, world=2) for rank in (0, 1)]
    for part in parts:
        captions(islice(part, 30))
    state = merge_states([part.state_dict() for part in parts])
    for world in (1, 3):
        rest = [stream(source, shuffle=3, lanes=12, rank=rank, world=world) for rank in range(world)]
        for part in rest:
            part.load_state_dict(state)
        found = [captions(islice(part, 60 // world)) for part in rest]
        assert [n for turn in zip(*found) for n in turn] == whole[60:]


def test_faults_keep_their_place_when_a_run_is_resumed(tmp_path):
    samples = {}
    for n in range(40):
        samples |= numbered(n, 1)
        if n % 4 == 0:
            samples[f"bad{n}"] = BAD["no caption"][0]
    write_tar(tmp_path / "a.tar", samples)
    source = data.find(tmp_path)
    whole = stream(source, lanes=2, shuffle=6, limit=1.0)
    everything = captions(islice(whole, 90))
    for stop in range(0, 90, 13):
        first, second = (stream(source, lanes=2, shuffle=6, limit=1.0) for _ in range(2))
        begun = captions(islice(first, stop))
        second.load_state_dict(first.state_dict())
        assert begun + captions(islice(second, 90 - stop)) == everything
        assert first.seen + second.seen == whole.seen


def test_another_recipe_does_not_take_the_state(source, other):
    state = stream(source).state_dict()
    for wrong in (stream(other), stream(source, seed=1), stream(source, lanes=4), stream(source, shuffle=7)):
        with pytest.raises(ValueError, match="belongs to other shards or to another seed"):
            wrong.load_state_dict(state)


def test_a_block_is_all_that_is_held_and_samples_stay_inside_it(source, monkeypatch):
    found = captions(stream(source, lanes=1, shuffle=6, passes=1))
    dealt = [n for piece in order.deal(source, seed=0, turn=0, lane=0, lanes=1, shuffle=6) for n in of(piece, source)]
    for k in range(0, 34, 6):
        assert sorted(found[k : k + 6]) == sorted(dealt[k : k + 6])
    sizes = [len(b) for b, _, _ in order.blocks(order.deal(source, seed=0, turn=0, lane=0, lanes=1, shuffle=6), "tar",
                                                order.START, 6)]  # fmt: skip
    assert sizes == [6, 6, 6, 6, 6, 4]
    monkeypatch.setattr(order, "BLOCK_BYTES", 1)  # heavy pictures: a block of one
    assert captions(stream(source, lanes=1, shuffle=6, passes=1)) == dealt


def of(piece, source):
    """The captions of a whole shard."""
    first = {shard: sum([7, 1, 12, 5, 9][:k]) for k, shard in enumerate(source.shards)}
    return range(first[piece.shard], first[piece.shard] + dict(zip(source.shards, [7, 1, 12, 5, 9]))[piece.shard])


def test_reading_ahead_is_bounded(source, monkeypatch):
    """No more records are read than the block needs: memory does not grow with the shard."""
    read, count = order.read, Counter()

    def counted(shard, kind):
        for record in read(shard, kind):
            count["read"] += 1
            yield record

    monkeypatch.setattr(order, "read", counted)
    for given, _ in enumerate(stream(source, lanes=1, shuffle=6, passes=1), 1):
        assert count["read"] <= given + 6


def test_shares_of_a_mixture(source, other):
    n = 4000
    found = captions(islice(stream(source, other, weights=(1.0, 3.0), seed=1), n))
    share = sum(number >= 1000 for number in found)
    low, high = binom.interval(0.999, n, 0.75)
    assert low <= share <= high
    windows = [sum(number >= 1000 for number in found[k : k + 400]) for k in range(0, n, 400)]
    assert max(windows) <= binom.ppf(0.99999, 400, 0.75) and min(windows) >= binom.ppf(0.00001, 400, 0.75)


def test_a_source_that_ends_leaves_the_others(source, other):
    found = captions(stream(source, other, weights=(1.0, 100.0), passes=1))
    assert sorted(found) == [*range(34), *range(1000, 1040)]


def test_batches_come_step_by_step_and_resume(source):
    def batches():
        return Batches(stream(source, size=8), 6)

    whole = batches()
    expected = [whole.at(step) for step in range(12)]
    assert all(len(batch.captions) == 6 and batch.images[0].size == (8, 8) for batch in expected)
    first, second = batches(), batches()
    for step in range(5):
        first.at(step)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert [second.at(step).captions for step in range(5, 12)] == [batch.captions for batch in expected[5:]]
    with pytest.raises(ValueError, match=r"step 3 was asked for, but the data stands before step 12"):
        second.at(3)
    ending = Batches(stream(source, passes=1), 20)
    ending.at(0)
    with pytest.raises(ValueError, match="the data ended before step 1"):
        ending.at(1)


def test_no_random_number_of_others_is_used(source):
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    captions(islice(stream(source, workers=2), 20))
    assert torch.equal(before, torch.random.get_rng_state())


def test_wrong_requests_are_sentences(source, tmp_path):
    for wrong, sentence in (
        ({"rank": 2, "world": 2}, "rank 2 of 2 has none"),
        ({"world": 9, "rank": 8}, "choose lanes=9 or more"),
        ({"workers": 3}, "8 of 8 lanes, which 3 workers cannot share evenly; choose lanes=3"),
        ({"weights": (1.0, 2.0)}, "1 sources have 2 weights"),
        ({"weights": (-1.0,)}, "expected positive numbers"),
        ({"lanes": 0}, "lanes is 0"),
    ):
        with pytest.raises(ValueError, match=sentence.replace("(", r"\(")):
            stream(source, **wrong)
    with pytest.raises(ValueError, match="no source"):
        stream()
    write_tar(tmp_path / "few.tar", numbered(0, 3))
    for workers in (0, 2):
        with pytest.raises(ValueError, match=r"^\S+ has nothing for lane \d of 8 in 100 passes; choose fewer lanes"):
            captions(stream(data.find(tmp_path), workers=workers, shuffle=0))
    assert len(captions(islice(stream(data.find(tmp_path)), 50))) == 50  # dealt anew, every lane gets its turn
