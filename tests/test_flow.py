"""The flow's invariants, in float64, and the published schedules, to the integer."""

import pytest
import torch

from blip3o_mini import flow

EXACT = {"rtol": 1e-9, "atol": 1e-12}
# what the published sampler tells its network in 30 steps (reference section 1.4)
PUBLISHED_TIMESTEPS = (
    "1000 966 933 900 866 833 800 766 733 700 666 633 600 566 533 "
    "500 466 433 400 366 333 300 266 233 200 166 133 100 66 33"
)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def draw(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("shape", [(5, 4), (5, 9, 6), (5, 3, 2, 2)])
def test_the_path_runs_from_features_to_noise(generator, shape):
    features, noise = draw(generator, *shape), draw(generator, *shape)
    assert torch.equal(flow.interpolate(features, noise, torch.zeros(5)), features)
    assert torch.equal(flow.interpolate(features, noise, torch.ones(5)), noise)


def test_each_sample_has_its_own_noise_level(generator):
    features, noise = draw(generator, 3, 3, 3), draw(generator, 3, 3, 3)
    sigma = torch.tensor([0.0, 0.25, 1.0])
    for index, x in enumerate(flow.interpolate(features, noise, sigma)):
        expected = (1 - sigma[index].double()) * features[index] + sigma[index].double() * noise[index]
        torch.testing.assert_close(x, expected, **EXACT)


def test_the_target_is_the_slope_of_the_path(generator):
    features, noise = draw(generator, 4, 9, 6), draw(generator, 4, 9, 6)
    here, there = (torch.full((4,), value, dtype=torch.float64) for value in (0.3, 0.7))
    rise = flow.interpolate(features, noise, there) - flow.interpolate(features, noise, here)
    torch.testing.assert_close(rise / 0.4, flow.velocity_target(features, noise), **EXACT)


@pytest.mark.parametrize("steps", [1, 2, 7, 30])
def test_euler_is_exact_on_a_straight_path_for_any_number_of_steps(generator, steps):
    features, noise = draw(generator, 2, 9, 6), draw(generator, 2, 9, 6)
    schedule = flow.sigmas(steps)
    states = list(flow.euler(lambda x, sigma: noise - features, noise, schedule))
    assert len(states) == steps
    for state, sigma in zip(states, schedule[1:]):
        expected = flow.interpolate(features, noise, torch.full((2,), sigma, dtype=torch.float64))
        torch.testing.assert_close(state, expected, **EXACT)


def test_schedule_matches_the_published_sampler():
    assert flow.sigmas(1) == [1.0, 0.0]
    schedule = flow.sigmas(30)
    assert len(schedule) == 31
    told = [int(flow.timestep(sigma, is_integer=True)) for sigma in schedule[:-1]]
    assert told == [int(word) for word in PUBLISHED_TIMESTEPS.split()]
    with pytest.raises(ValueError, match="0 steps"):
        flow.sigmas(0)


def test_training_tells_the_fraction_and_sampling_drops_it():
    assert flow.timestep(2 / 3).item() == pytest.approx(666.6667, abs=1e-4)
    assert flow.timestep(2 / 3, is_integer=True).item() == 666
    assert flow.timestep(torch.tensor([0.5, 0.511])).tolist() == pytest.approx([500, 511], abs=1e-4)


def test_noise_levels_of_the_published_table():
    u = torch.tensor([0.0, 0.0005, 0.1234, 0.489, 0.999, 1 - 2**-24])
    thousandths = (1000 * flow.sigma_from_uniform(u)).round().tolist()
    assert thousandths == [1000, 1000, 877, 511, 1, 1]


def test_sampled_noise_levels_follow_their_distribution(generator):
    published = flow.sample_sigma(20_000, generator)
    assert published.min() >= 0.001 and published.max() <= 1
    assert published.mean().item() == pytest.approx(0.5005, abs=0.01)
    for shift in (0.0, 0.5):
        sigma = flow.sample_sigma(20_000, generator, shift=shift)
        assert sigma.logit().mean().item() == pytest.approx(shift, abs=0.03)
        assert sigma.logit().std().item() == pytest.approx(1, abs=0.03)
    with pytest.raises(ValueError, match="nan"):
        flow.sample_sigma(2, generator, shift=float("nan"))


def test_randomness_is_an_argument():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    draws = []
    for _ in range(2):
        generator = torch.Generator().manual_seed(7)
        like = torch.empty(2, 9, 6, dtype=torch.float16)
        draws.append(
            (
                flow.sample_noise(like, generator),
                flow.sample_sigma(3, generator),
                flow.sample_sigma(3, generator, shift=0.5),
                flow.sample_drop(3, 0.5, generator),
            )
        )
    assert all(torch.equal(first, second) for first, second in zip(*draws))
    assert draws[0][0].dtype == torch.float16
    assert torch.equal(torch.get_rng_state(), before)


def test_guidance_one_is_off_and_zero_ignores_the_condition(generator):
    null, condition = draw(generator, 2, 9, 6), draw(generator, 2, 9, 6)
    torch.testing.assert_close(flow.guide(null, condition, 1.0), condition, **EXACT)
    assert torch.equal(flow.guide(null, condition, 0.0), null)
    torch.testing.assert_close(flow.guide(null, condition, 3.0), 3 * condition - 2 * null, **EXACT)


@pytest.mark.parametrize(("guidance", "rows"), [(1.0, 2), (3.0, 4), (0.0, 4)])
def test_guided_velocity_asks_once_with_the_null_half_first(generator, guidance, rows):
    condition, x = draw(generator, 2, 5, 3), draw(generator, 2, 9, 6)
    calls = []

    def predict(x, timestep, condition):
        calls.append((len(x), timestep.item()))
        return x * condition.mean((1, 2))[:, None, None]  # zero for the null condition

    velocity = flow.guided(predict, condition, guidance, is_integer=True)(x, 2 / 3)
    torch.testing.assert_close(velocity, guidance * x * condition.mean((1, 2))[:, None, None], **EXACT)
    assert calls == [(rows, 666)]


def test_dropping_a_condition_zeroes_all_of_it_and_stops_its_gradient(generator):
    condition = draw(generator, 3, 5, 4).requires_grad_()
    dropped = flow.drop_condition(condition, torch.tensor([0.0, 1.0, 0.0]))
    assert torch.equal(dropped[[0, 2]], condition[[0, 2]]) and not dropped[1].any()
    dropped.sum().backward()
    assert condition.grad[[0, 2]].eq(1).all() and not condition.grad[1].any()


def test_the_published_share_of_conditions_is_dropped(generator):
    assert flow.sample_drop(20_000, 0.1, generator).float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert not flow.sample_drop(100, 0.0, generator).any() and flow.sample_drop(100, 1.0, generator).all()
    with pytest.raises(ValueError, match=r"1\.5"):
        flow.sample_drop(3, 1.5, generator)


def test_loss_is_the_plain_mean_of_squares(generator):
    prediction, target = draw(generator, 4, 9, 6), draw(generator, 4, 9, 6)
    each = flow.sample_losses(prediction, target)
    for index in range(4):
        expected = torch.nn.functional.mse_loss(prediction[index], target[index])
        torch.testing.assert_close(each[index], expected, **EXACT)
    torch.testing.assert_close(flow.loss(prediction, target), each.mean(), **EXACT)
    huge = torch.full((1, 4), 300.0, dtype=torch.float16)  # 300² is more than float16 can hold
    assert flow.loss(huge, torch.zeros_like(huge)).item() == 90_000
    with pytest.raises(ValueError, match=r"\(4, 1, 6\)"):
        flow.loss(prediction, target[:, :1])


def optimal_velocity(data):
    """The best possible velocity for a finite data set, in closed form.

    Given x, data point d was drawn with probability ∝ exp(-|x - (1-sigma)·d|² / 2sigma²); then
    noise = (x - (1-sigma)·d) / sigma, and the mean of noise - d is (x - mean of d) / sigma.
    """

    def velocity(x, sigma):
        distances = (x[:, None] - (1 - sigma) * data).square().sum(-1)  # (B, points)
        mean = torch.softmax(-distances / (2 * sigma**2), dim=1) @ data
        return (x - mean) / sigma

    return velocity


def test_the_optimal_velocity_leads_from_noise_to_the_data(generator):
    data = 2 * draw(generator, 6, 8)
    *_, samples = flow.euler(optimal_velocity(data), draw(generator, 600, 8), flow.sigmas(100))
    distances = (samples[:, None] - data).norm(dim=-1)
    nearest, point = distances.min(1)
    assert nearest.max() < 1e-9
    assert torch.bincount(point, minlength=6).min() > 50  # 100 expected: no point is forgotten


def test_no_other_velocity_has_a_lower_loss(generator):
    data, sigma = draw(generator, 6, 8), 0.5
    features = data[torch.randint(6, (4000,), generator=generator)]
    noise = draw(generator, 4000, 8)
    x = flow.interpolate(features, noise, torch.full((4000,), sigma))
    best, target = optimal_velocity(data)(x, sigma), flow.velocity_target(features, noise)
    for other in (best + 0.1, 0.9 * best, -best, best + 0.1 * draw(generator, 4000, 8)):
        assert flow.loss(best, target) < flow.loss(other, target)
