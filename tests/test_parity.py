"""The original's numbers: ours agree, and a folder that is wrong, damaged or unknown is told apart."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from blip3o_mini import flow, parity
from blip3o_mini.config import DitConfig
from blip3o_mini.dit import NextDit
from blip3o_mini.parity.network import SIZES, on_grid

FOLDER = Path(__file__).parent / "parity"


@pytest.fixture(scope="module")
def rows():
    return parity.run(FOLDER)


def copy(folder, *names):
    for name in names:
        for suffix in (".json", ".safetensors"):
            shutil.copy(FOLDER / (name + suffix), folder)
    return folder


def change(path, **tensors):
    """Rewrite a fixture with some tensors replaced, added or (None) left out."""
    changed = load_file(path) | {key.replace("__", "."): value for key, value in tensors.items()}
    save_file({key: value for key, value in changed.items() if value is not None}, path)


def test_our_numbers_are_the_originals(rows):
    missed = [row for row in rows if row.passed is False]
    assert not missed, parity.format_table(missed)
    assert not parity.failed(rows)
    compared = [row for row in rows if row.passed]
    assert len(compared) == 289 and all(row.max_error <= row.tolerance for row in compared)


def test_what_nothing_looked_at_is_not_called_passed(rows):
    assert not [row for row in rows if row.passed is None]
    table = parity.format_table(rows)
    assert "289 passed, 0 missed, 0 not checked or absent" in table and "MISS" not in table


def test_unknown_kinds_and_unknown_tensors_are_listed(tmp_path):
    copy(tmp_path, "dit_tiny_gqa")
    change(tmp_path / "dit_tiny_gqa.safetensors", probe_a__layer_9=torch.zeros(1))
    (tmp_path / "surprise.json").write_text("{}")
    rest = {row.file: row.quantity for row in parity.run(tmp_path) if row.passed is None}
    assert "probe_a.layer_9" in rest["dit_tiny_gqa"]
    assert "unknown kind" in rest["surprise"]
    assert rest["flow_loss_*"] == rest["manifest_*"] == "absent" and "dit_*" not in rest


@pytest.mark.parametrize(
    "key",
    [
        "state_dict.model.layers.1.attn2.norm_k.weight",
        "state_dict.model.time_caption_embed.caption_embedder.0.bias",
        "case_rect.grad_z_latents",
        "probe_a.layer_0_cross_attn",
        "rope.sin",
    ],
)
def test_one_wrong_number_is_a_miss(tmp_path, key):
    path = copy(tmp_path, "dit_tiny_gqa") / "dit_tiny_gqa.safetensors"
    tensor = load_file(path)[key]
    tensor.view(-1)[-1] += 0.01
    change(path, **{key: tensor})
    rows = parity.run(tmp_path)
    assert parity.failed(rows)
    assert "MISS" in parity.format_table(rows)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_never_pass(tmp_path, value):
    path = copy(tmp_path, "dit_tiny_gqa") / "dit_tiny_gqa.safetensors"
    tensor = load_file(path)["case_a.output"]
    tensor[0, 0, 0, 0] = value
    change(path, case_a__output=tensor)
    assert [row.quantity for row in parity.run(tmp_path) if row.passed is False] == ["case_a.output"]


def make_folder(folder, *, guidance):
    """Fixtures of other sizes, cases and runs, computed with our own network."""
    torch.manual_seed(0)
    sizes = {"feature_width": 6, "width": 32, "layers": 3, "heads": 2, "kv_heads": 1, "condition_width": 10}
    network = NextDit(DitConfig(**sizes, multiple_of=16))
    x, condition = torch.randn(2, 6, 3, 5), torch.randn(2, 7, 10)
    weights = {f"state_dict.model.{key}": value for key, value in network.state_dict().items()}
    case = {"case_other.timestep": torch.tensor([12, 999])}
    with torch.no_grad():
        case["case_other.output"] = on_grid(network, x, case["case_other.timestep"], condition).contiguous()
        velocity = flow.guided(lambda *args: on_grid(network, *args), condition, guidance, is_integer=True)
        states = torch.stack([x, *flow.euler(velocity, x, flow.sigmas(3))])
        both = on_grid(network, torch.cat([x, x]), torch.tensor(1000), torch.cat([0 * condition, condition]))
    save_file({**weights, **case, "x": x, "z_latents": condition}, folder / "dit_mid_a_y.safetensors")
    published = {theirs: sizes.get(ours, 16) for ours, theirs in SIZES.items()}
    (folder / "dit_mid_a_y.json").write_text(json.dumps({"dit": published}))
    run = {"run_z.trajectory": states, "run_z.dit_output": torch.stack([both] * 3).contiguous()}
    save_file({**run, "initial_noise": x, "z_latents": condition}, folder / "flow_sampling_mid_y.safetensors")
    settings = {"steps": {"run_z": 3}, "guidance_scale": {"run_z": guidance}}
    (folder / "flow_sampling_mid_y.json").write_text(json.dumps(settings))


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_other_sizes_cases_and_runs_are_found_by_their_names(tmp_path, guidance):
    make_folder(tmp_path, guidance=guidance)
    results = {row.quantity: row.passed for row in parity.run(tmp_path) if row.quantity != "absent"}
    # every step's output was stored as that of the first: the later ones must be noticed
    assert results == {"case_other.output": True, "run_z.trajectory": True, "run_z.dit_output": False}


def other_shape(manifest):
    manifest["parameters"]["model.norm.weight"]["shape"] = [7]


def other_type(manifest):
    manifest["parameters"]["model.latent_queries"]["dtype"] = "float16"


def renamed(manifest):
    tensors, name = manifest["parameters"], "model.dit.model.layers.0.gate"
    tensors[f"{name}s"] = tensors.pop(name)


def other_count(manifest):
    manifest["parameter_totals"]["dit"] += 1


@pytest.mark.parametrize(
    ("mistake", "quantity"),
    [
        (other_shape, "parameters, shapes of 2144 tensors: model.norm.weight"),
        (other_type, "parameters, types of 2144 tensors: model.latent_queries"),
        (renamed, "parameters, names of 2144 tensors: model.dit.model.layers.0.gate; model.dit.model.layers.0.gates"),
        (other_count, "parameter_totals.dit"),
    ],
)
def test_one_wrong_line_of_a_manifest_is_a_miss(tmp_path, mistake, quantity):
    manifest = json.loads((FOLDER / "manifest_8b.json").read_text())
    mistake(manifest)
    (tmp_path / "manifest_other.json").write_text(json.dumps(manifest))
    assert [row.quantity for row in parity.run(tmp_path) if row.passed is False] == [quantity]


def truncate(folder):
    path = folder / "dit_tiny_a.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def break_json(folder):
    (folder / "dit_tiny_a.json").write_text('{"dit": ')


def list_json(folder):
    (folder / "dit_tiny_a.json").write_text("[]")


def other_sizes(folder):
    path = folder / "dit_tiny_a.json"
    path.write_text(path.read_text().replace('"dim": 48', '"dim": 64'))


def text_size(folder):
    path = folder / "dit_tiny_a.json"
    path.write_text(path.read_text().replace('"dim": 48', '"dim": "48"'))


def drop_weights(folder):
    (folder / "dit_tiny_a.safetensors").unlink()


def drop_result(folder):
    change(folder / "dit_tiny_a.safetensors", case_b__output=None)


def other_batch(folder):
    change(folder / "flow_loss_tiny.safetensors", u=torch.zeros(3))


def hollow_manifest(folder):
    (folder / "manifest_8b.json").write_text("{}")


def empty(folder):
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (truncate, "dit_tiny_a.safetensors is damaged"),
        (break_json, "dit_tiny_a.json is damaged"),
        (list_json, "dit_tiny_a.json is damaged: it holds a list"),
        (other_sizes, "the weights in dit_tiny_a do not fit its sizes"),
        (text_size, "dim is '48', not a whole number"),
        (drop_weights, "dit_tiny_a.safetensors is missing"),
        (drop_result, "dit_tiny_a.safetensors holds no 'case_b.output'"),
        (other_batch, "the tensors of flow_loss_tiny do not fit together"),
        (hollow_manifest, "manifest_8b.json holds no unet_config"),
        (empty, "holds no fixtures"),
    ],
)
def test_a_damaged_folder_is_one_sentence(tmp_path, damage, sentence):
    damage(copy(tmp_path, "dit_tiny_a", "flow_loss_tiny"))
    with pytest.raises(ValueError, match=sentence) as caught:
        parity.run(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="there is no folder"):
        parity.run(tmp_path / "nowhere")
