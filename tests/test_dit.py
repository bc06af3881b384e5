"""The Next-DiT's invariants and its published sizes; its numbers are compared in test_parity."""

from dataclasses import replace

import pytest
import torch

from blip3o_mini.config import DitConfig, preset
from blip3o_mini.dit import NextDit, RmsNorm, ffn_width, rotary_table, rotate, sinusoids

SMALL = DitConfig(
    feature_width=6, width=32, layers=2, heads=4, kv_heads=4, condition_width=10, multiple_of=16
)
CPU = torch.device("cpu")


def build(config=SMALL, seed=0):
    """A float64 network with random gates, so that no part of it is silent."""
    torch.manual_seed(seed)
    network = NextDit(config).double()
    for layer in network.layers:
        torch.nn.init.normal_(layer.gate)
    return network


def inputs(batch=3, cells=9, condition_tokens=5, config=SMALL, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(batch, cells, config.feature_width, generator=generator, dtype=dtype)
    condition = torch.randn(batch, condition_tokens, config.condition_width, generator=generator, dtype=dtype)
    return features, 1000 * torch.rand(batch, generator=generator), condition


@pytest.mark.parametrize(("name", "parameters"), [("8b", 1_365_010_336), ("4b", 1_362_257_824)])
def test_published_sizes(name, parameters):
    config = preset(name).dit
    with torch.device("meta"):
        network = NextDit(config)
        cells = torch.zeros(1, 64, 1792)
        velocity = network(cells, torch.zeros(1), torch.zeros(1, 64, config.condition_width))
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert sum(parameter.numel() for parameter in network.layers[0].parameters()) == 55_998_236
    assert velocity.shape == cells.shape
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    assert shapes["layers.23.norm1.linear.weight"] == (7168, 1024)
    assert shapes["layers.0.feed_forward.linear_2.weight"] == (1792, 4864)
    assert "layers.0.attn2.to_out.0.weight" in shapes and "layers.0.attn1.to_out.0.weight" not in shapes


def test_feed_forward_width():
    assert [ffn_width(1792, 256), ffn_width(48, 256), ffn_width(48, 32)] == [4864, 256, 128]


def test_a_batch_of_three_equals_three_batches_of_one():
    network, (features, timestep, condition) = build(), inputs()
    together = network(features, timestep, condition)
    for index in range(3):
        one = slice(index, index + 1)
        alone = network(features[one], timestep[one], condition[one])
        torch.testing.assert_close(together[one], alone, rtol=1e-9, atol=1e-12)


def test_one_timestep_serves_a_whole_batch():
    network, (features, _, condition) = build(), inputs()
    each = network(features, torch.full((3,), 966.0), condition)
    assert torch.equal(network(features, torch.tensor(966.0), condition), each)
    fraction = network(features, torch.tensor(966.67), condition)
    assert (fraction - each).abs().max() > 1e-4  # a dropped fraction is visible


def test_every_parameter_learns():
    config = replace(SMALL, positions=9, has_source=True, kv_heads=2)
    network, (features, timestep, condition) = build(config), inputs()
    network(features, timestep, condition, source=features.flip(0)).square().sum().backward()
    for name, parameter in network.named_parameters():
        largest = parameter.grad.abs().max().item()
        if name.endswith("attn2.norm_k.bias"):
            # the same constant on every key does not change a softmax (there is no rotary on these keys)
            assert largest < 1e-9, name
        else:
            assert largest > 1e-7, name


def test_cross_attention_starts_silent_but_can_learn():
    torch.manual_seed(0)
    network = NextDit(SMALL).double()
    features, timestep, condition = inputs()
    network(features, timestep, condition).square().sum().backward()
    for layer in network.layers:
        assert not layer.gate.any() and layer.gate.grad.abs().min() > 0
        assert not layer.attn2.to_v.weight.grad.any()


def test_the_order_of_the_condition_does_not_matter_and_that_of_the_cells_does():
    network, (features, timestep, condition) = build(), inputs()
    velocity = network(features, timestep, condition)
    shuffled = network(features, timestep, condition.flip(1))
    torch.testing.assert_close(shuffled, velocity, rtol=1e-9, atol=1e-12)
    turned = network(features.flip(1), timestep, condition).flip(1)
    assert (turned - velocity).abs().max() > 1e-3


def test_rows_and_columns_are_not_exchanged():
    network, (features, timestep, condition) = build(), inputs(cells=12)
    wide = network(features, timestep, condition, grid=(2, 6))
    tall = network(features, timestep, condition, grid=(6, 2))
    assert (wide - tall).abs().max() > 1e-3
    square = network(features[:, :9], timestep, condition, grid=(3, 3))
    assert torch.equal(network(features[:, :9], timestep, condition), square)


def test_rotary_frequencies_alternate_between_row_and_column():
    angles = rotary_table(3, 3, 64, CPU).angle().view(3, 3, 16, 2)  # (row, column, frequency, axis)
    frequencies = 10.0 ** (-torch.arange(16) / 4)
    assert not angles[0, 0].any()
    torch.testing.assert_close(angles[1, 0, :, 0], frequencies)
    torch.testing.assert_close(angles[0, 1, :, 1], frequencies)
    assert not angles[1, 0, :, 1].any() and not angles[0, 1, :, 0].any()


def test_rotary_sees_only_offsets():
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 8, generator=generator, dtype=torch.float64)
    table = rotary_table(4, 5, 8, CPU)
    turned_q, turned_k = (rotate(x.expand(1, 20, 1, 8), table)[0, :, 0].view(4, 5, 8) for x in (q, k))
    torch.testing.assert_close(turned_q.norm(dim=-1), q.norm().expand(4, 5), rtol=1e-6, atol=0)
    # from (row 0, column 1) to (2, 2) it is as far as from (1, 3) to (3, 4); (2, 0) is elsewhere
    pairs = ((0, 1), (2, 2)), ((1, 3), (3, 4)), ((0, 1), (2, 0))
    here, moved, other = (turned_q[start] @ turned_k[end] for start, end in pairs)
    torch.testing.assert_close(here, moved, rtol=1e-6, atol=1e-9)  # the table itself is float32
    assert (here - other).abs() > 1e-3


def test_grouped_heads_equal_full_heads_with_repeated_weights():
    grouped = build(replace(SMALL, kv_heads=2))
    full = build(SMALL, seed=1)
    weights = grouped.state_dict()
    for key, value in weights.items():
        if ".to_k." in key or ".to_v." in key:  # head j serves query heads 2j and 2j + 1
            weights[key] = value.unflatten(0, (2, 8)).repeat_interleave(2, 0).flatten(0, 1)
        elif ".norm_k." in key:  # repeating every head changes neither mean nor variance
            weights[key] = value.unflatten(0, (2, 8)).repeat_interleave(2, 0).flatten()
    full.load_state_dict(weights)
    torch.testing.assert_close(full(*inputs()), grouped(*inputs()), rtol=1e-9, atol=1e-12)


def test_sinusoids_put_cosines_first():
    code = sinusoids(torch.tensor([0.0, 1000.0]))
    assert code.shape == (2, 256)
    assert code[0, :128].eq(1).all() and code[0, 128:].eq(0).all()
    expected = torch.tensor([1000.0]).cos(), torch.tensor([1000.0]).sin()
    torch.testing.assert_close(code[1, [0, 128]], torch.cat(expected))


def test_options_add_parameters_only_when_they_are_on():
    plain = NextDit(SMALL).state_dict().keys()
    optional = NextDit(replace(SMALL, positions=9, has_source=True)).state_dict().keys()
    assert optional - plain == {"positions", "source_embedder.weight"} and not plain - optional


def test_a_source_changes_nothing_until_it_is_learned_and_zeros_mean_none():
    network, (features, timestep, condition) = build(replace(SMALL, has_source=True)), inputs()
    without = network(features, timestep, condition)
    source = features.flip(0)
    assert torch.equal(network(features, timestep, condition, source=source), without)
    torch.nn.init.normal_(network.source_embedder.weight)
    assert (network(features, timestep, condition, source=source) - without).abs().max() > 1e-3
    zeros = torch.zeros_like(features)
    assert torch.equal(network(features, timestep, condition, source=zeros), without)


def test_built_on_meta_and_first_used_for_sampling_it_still_trains():
    rotary_table.cache_clear()
    with torch.device("meta"):
        network = NextDit(SMALL)
    network = network.to_empty(device="cpu").double()
    network.load_state_dict(build().state_dict())
    features, timestep, condition = inputs()
    with torch.inference_mode():
        sampled = network(features, timestep, condition)
    trained = network(features, timestep, condition)
    trained.sum().backward()
    assert torch.equal(sampled, trained) and torch.equal(trained, build()(features, timestep, condition))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.02), (torch.bfloat16, 0.1)])
def test_half_precision_stays_close(dtype, tolerance):
    network, (features, timestep, condition) = build(), inputs()
    exact = network(features, timestep, condition)
    low = network.to(dtype)(features.to(dtype), timestep, condition.to(dtype))
    assert low.dtype == dtype
    # only rounding: eleven (float16) or eight (bfloat16) significant bits through two blocks
    assert (low.double() - exact).abs().max() < tolerance * exact.abs().max()


def test_rms_norm_is_computed_in_float32():
    x = torch.full((1, 8), 1000.0, dtype=torch.float16)  # its square is more than float16 can hold
    assert RmsNorm(8).half()(x).tolist() == [[1.0] * 8]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"width": 30}, "choose width=32"),
        ({"heads": 16}, "choose width=64"),
        ({"kv_heads": 3}, "4 heads cannot share 3"),
    ],
)
def test_impossible_sizes_are_refused_with_a_remedy(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        NextDit(replace(SMALL, **changes))


def test_inputs_that_do_not_fit_are_refused():
    network, (features, timestep, condition) = NextDit(SMALL).double(), inputs()
    positioned = NextDit(replace(SMALL, positions=16, has_source=True)).double()
    for sentence, call in {
        "7 cells do not fill 2 rows of 2": lambda: network(features[:, :7], timestep, condition),
        "9 cells do not fill 2 rows of 4": lambda: network(features, timestep, condition, grid=(2, 4)),
        "features are 5 wide; this network takes 6": lambda: network(features[..., :5], timestep, condition),
        "condition is 9 wide": lambda: network(features, timestep, condition[..., :9]),
        "as many conditions, not 2": lambda: network(features, timestep, condition[:2]),
        "reads no source": lambda: network(features, timestep, condition, source=features),
        "learned 16 positions, not 9": lambda: positioned(features, timestep, condition),
    }.items():
        with pytest.raises(ValueError, match=sentence):
            call()
