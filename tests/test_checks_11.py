"""The checks of lesson 11 against the package's own arithmetic, and other ways to write the answers."""

import pytest
import torch

from blip3o_mini import cost
from blip3o_mini.checks import nb11_scale as check
from blip3o_mini.config import preset
from blip3o_mini.cost.parts import dit_block
from blip3o_mini.dit import Block, ffn_width

EXERCISES = {e.name: e for e in (check.block_parameters, check.layer_flops, check.bytes_per_gpu, check.days)}


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_every_slip_is_named_by_its_own_sentence(exercise, capsys):
    assert len(exercise.slips) >= 3
    for slip in exercise.slips:
        assert exercise(slip.wrong) is False
        assert capsys.readouterr().out.startswith(f"✘ {exercise.number} {exercise.name} — {slip.says}")


@pytest.mark.parametrize("name", ["toy", "4b", "8b"])
def test_blocks_are_counted_as_they_are(name):
    config = preset(name).dit
    embed = min(config.width, 1024)
    with torch.device("meta"):
        made = sum(p.numel() for p in Block(config, embed).parameters())
    sizes = (config.width, ffn_width(config.width, config.multiple_of), embed, config.heads)
    assert check.block_parameters.right(*sizes) == made == dit_block(config, embed, cells=1, queries=1).parameters


def test_memory_agrees_with_the_package():
    """The package adds kept values and libraries; weights and optimizer are the same."""
    config = preset("8b")
    counts, told = cost.parameters(config), cost.training_memory(config)
    learned = counts["dit"] + counts["queries"]
    ours = check.bytes_per_gpu.right(counts["backbone"], learned, 1, "nothing")
    assert ours == pytest.approx(told.weights + told.optimizer)


def test_other_ways_to_write_it_pass():
    def block(width, inner, embed, heads):
        attention = 2 * (3 * width * width + 4 * width) + width * width + heads
        return attention + 3 * width * inner + (embed + 1) * 4 * width + 5 * width

    def flops(weights, tokens, keys, width):
        return tokens * (2 * weights + 2 * (2 * keys * width))

    for exercise, learner in ((check.block_parameters, block), (check.layer_flops, flops)):
        is_right, report = exercise.judge(learner)
        assert is_right, report
