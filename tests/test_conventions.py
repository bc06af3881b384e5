"""CONVENTIONS.md translates rightly: every row of its tables is tried with numbers."""

import re
from pathlib import Path

import pytest
import torch

from blip3o_mini import flow

TEXT = (Path(__file__).resolve().parent.parent / "notebooks" / "CONVENTIONS.md").read_text(encoding="utf-8")
EXACT = {"rtol": 1e-9, "atol": 1e-12}


def rows(heading: str) -> list[list[str]]:
    """The cells of a table's rows, without its head."""
    section = TEXT.split(f"## {heading}\n")[1].split("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def value(formula: str, **numbers):
    """What a formula of the table gives; its signs are the printer's."""
    python = formula.replace("−", "-").replace("·", "*").replace("√ᾱ", "ᾱ**0.5").replace("√(1 - ᾱ)", "(1 - ᾱ)**0.5")
    return eval(python, {"__builtins__": {}}, numbers)  # our own file, no stranger's


PATHS = [row for row in rows("The same formula elsewhere") if "another path" not in row[-1]]


@pytest.mark.parametrize("row", PATHS, ids=lambda row: row[0][:24])
def test_a_row_describes_our_path_and_our_velocity(row):
    _, time, data_at, noise_at, predicts, translation = row
    generator = torch.Generator().manual_seed(0)
    features, noise = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    sigma = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    if time.startswith("sigma"):
        t = sigma
    else:
        t = value(re.search(r"t = (1 − sigma|sigma)", translation).group(1), sigma=sigma)
    begin, end = (features, noise) if int(data_at) == 0 else (noise, features)
    assert {int(data_at), int(noise_at)} == {0, 1}
    x = begin + t[:, None] * (end - begin)  # their straight line, in their time
    torch.testing.assert_close(x, flow.interpolate(features, noise, sigma), **EXACT)
    predicted = value(predicts, data=features, features=features, noise=noise)
    torch.testing.assert_close(predicted, end - begin, **EXACT)  # dx/dt in their time
    sign = -1 if "flip the sign" in translation else 1
    torch.testing.assert_close(sign * predicted, flow.velocity_target(features, noise), **EXACT)


def test_the_table_names_the_usual_sources():
    names = " ".join(row[0] for row in rows("The same formula elsewhere"))
    for source in ("published BLIP3-o", "diffusers", "flow_matching", "rectified flow", "SiT", "DDPM"):
        assert source in names


def test_diffusers_walks_as_the_table_says():
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000)
    scheduler.set_timesteps(sigmas=flow.sigmas(8)[:-1])
    features, noise = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(1))
    x = noise
    for sigma, timestep in zip(flow.sigmas(8), scheduler.timesteps):
        assert float(timestep) == pytest.approx(1000 * sigma)
        # the library works in float32
        torch.testing.assert_close(x, flow.interpolate(features, noise, torch.full((5,), sigma)), rtol=1e-5, atol=1e-5)
        x = scheduler.step(flow.velocity_target(features, noise), timestep, x, return_dict=False)[0]
    torch.testing.assert_close(x, features, rtol=1e-5, atol=1e-5)


def test_ddpm_has_another_path():
    (row,) = [row for row in rows("The same formula elsewhere") if "another path" in row[-1]]
    formula = row[-1].split("x = ")[1]
    assert value(formula, data=3.0, noise=5.0, ᾱ=1.0) == 3 and value(formula, data=3.0, noise=5.0, ᾱ=0.0) == 5
    halfway = value(formula, data=3.0, noise=5.0, ᾱ=0.36)
    assert halfway == pytest.approx(0.6 * 3 + 0.8 * 5)  # the weights do not add up to 1


@pytest.mark.parametrize("g", [0.0, 1.0, 3.0])
def test_guidance_is_translated(g):
    null, condition = torch.tensor([1.0, 2.0]).double(), torch.tensor([-1.0, 5.0]).double()
    ours, theirs = rows("Guidance")
    expected = flow.guide(null, condition, g)
    torch.testing.assert_close(value(ours[1], null=null, condition=condition, g=g), expected, **EXACT)
    w = value(re.search(r"w = (g − 1)", theirs[2]).group(1), g=g)
    torch.testing.assert_close(value(theirs[1], null=null, condition=condition, w=w), expected, **EXACT)
    for off in (ours, theirs):
        name, at = re.match(r"(\w) = (\d)", off[2]).groups()
        assert torch.equal(value(off[1], null=null, condition=condition, **{name: float(at)}), condition)
