"""A checkpoint folder as the original writes it, tiny: names and shards by hand, the decoder by diffusers itself."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tiny_published import FEATURES, tiny_published

from blip3o_mini.model import Blip3oMini

FOLDER = Path(__file__).parent / "parity"
SHARDS = 3
TOWER = "model.gen_vision_tower.vision_tower.model."


def published_tensors(model: Blip3oMini) -> dict[str, torch.Tensor]:
    """Everything but the decoder, by the names that the manifests list."""
    found = {"model.latent_queries": model.backbone.queries}
    for name, tensor in model.backbone.language.state_dict().items():
        if name.startswith("model.visual."):
            name = name.removeprefix("model.")
        found[name.replace("model.language_model.", "model.")] = tensor
    found |= {f"model.dit.model.{name}": tensor for name, tensor in model.dit.state_dict().items()}
    found |= {TOWER + name: tensor for name, tensor in model.vision.tower.state_dict().items()}
    return {name: tensor.detach().clone() for name, tensor in found.items()}


def config_of(model: Blip3oMini) -> dict:
    """The published configuration with this model's sizes."""
    told = json.loads((FOLDER / "manifest_8b.json").read_text())["config"]
    backbone = model.config.backbone
    told["vision_config"] |= backbone.settings["vision_config"]
    told |= {key: value for key, value in backbone.settings.items() if key != "vision_config"}
    told |= dict.fromkeys(("pad_token_id", "vision_token_id"), told["bos_token_id"])
    return told | {
        "hidden_size": backbone.width, "num_hidden_layers": backbone.layers, "num_attention_heads": backbone.heads,
        "num_key_value_heads": backbone.kv_heads, "intermediate_size": backbone.ffn_width,
        "vocab_size": backbone.vocabulary, "max_position_embeddings": backbone.context,
        "n_query": backbone.num_queries, "tie_word_embeddings": backbone.is_tied, "gen_hidden_size": FEATURES,
        "gen_pooling": f"early_pool2d_{model.config.vision.pool}", "gen_vision_tower": "eva-clip-tiny",
        "gen_vision_head_width": model.config.vision.head_width, "torch_dtype": "float32",
    }  # fmt: skip


def write_shards(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Spread tensors over files, with their index."""
    names, files = sorted(tensors), {}
    for k in range(SHARDS):
        file = f"model-{k + 1:05}-of-{SHARDS:05}.safetensors"
        save_file({name: tensors[name] for name in names[k::SHARDS]}, folder / file, {"format": "pt"})
        files |= dict.fromkeys(names[k::SHARDS], file)
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": files}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def read_shards(folder: Path) -> dict[str, torch.Tensor]:
    return {name: t for path in sorted(folder.glob("*.safetensors")) for name, t in load_file(path).items()}


def change(folder: Path, **changed: torch.Tensor | None) -> None:
    """Rewrite the shards with some tensors replaced, added or (None) left out; __ stands for a dot."""
    tensors = read_shards(folder) | {name.replace("__", "."): tensor for name, tensor in changed.items()}
    write_shards(folder, {name: tensor for name, tensor in tensors.items() if tensor is not None})


def change_config(folder: Path, **changed: object) -> None:
    told = json.loads((folder / "config.json").read_text()) | changed
    (folder / "config.json").write_text(json.dumps(told))


def publish(folder: Path, model: Blip3oMini | None = None, *, has_head: bool | None = None) -> Blip3oMini:
    """Write a model as a published folder and return it; a tied head is stored only with `has_head`."""
    model = model or tiny_published()
    folder.mkdir(parents=True, exist_ok=True)
    tensors = published_tensors(model)
    if not (not model.config.backbone.is_tied if has_head is None else has_head):
        del tensors["lm_head.weight"]
    write_shards(folder, tensors)
    (folder / "config.json").write_text(json.dumps(config_of(model), indent=2, sort_keys=True) + "\n")
    (folder / "generation_config.json").write_text('{"do_sample": false}\n')
    model.tokenizer.save_pretrained(folder)
    decoder, place = model.decoder, folder / "diffusion-decoder"
    decoder.unet.save_pretrained(place / "unet", variant="bf16")
    decoder.vae.save_pretrained(place / "vae", variant="bf16")
    decoder.scheduler(1).save_pretrained(place / "scheduler")
    return model
