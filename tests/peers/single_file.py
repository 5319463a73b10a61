"""The original single-file layouts: LDM for Stable Diffusion 1.x and 2.x, SGM for SDXL.

`rows` maps the tensors of a diffusers folder to the original file; run as a script, it writes that table for the three test
models and proves it with diffusers' own converters.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch

import common
import families
import formula

UNET, VAE = "model.diffusion_model.", "first_stage_model."
CLIP = {"sd14": "cond_stage_model.transformer.", "sdxl": "conditioner.embedders.0.transformer."}
OPEN_CLIP = {"sd21": "cond_stage_model.model.", "sdxl": "conditioner.embedders.1.model."}

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
OPEN_CLIP_ENDS = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
}

SD21_LAYERS = 24
"""Layers of the text model in the file of SD 2.x; diffusers drops the last, which the pipeline never runs."""


def unet_key(key, config):
    """Original name of a UNet tensor, without the prefix."""
    path, kind = key.rsplit(".", 1)
    if path in UNET_ENDS:
        return f"{UNET_ENDS[path]}.{kind}"
    parts = path.split(".")
    layers = config["layers_per_block"]
    if parts[0] == "mid_block":
        part, number, rest = parts[1], int(parts[2]), parts[3:]
        block = f"middle_block.{2 * number if part == 'resnets' else 1}"
    else:
        level, part, number, rest = int(parts[1]), parts[2], int(parts[3]), parts[4:]
        place = {"resnets": 0, "attentions": 1}.get(part)
        if parts[0] == "down_blocks":
            first = level * (layers + 1) + 1
            if part == "downsamplers":
                return f"input_blocks.{first + layers}.0.op.{kind}"
            block = f"input_blocks.{first + number}.{place}"
        else:
            first = level * (layers + 1)
            if part == "upsamplers":  # behind the last resnet and, where there is one, its attention
                place = 2 if "CrossAttn" in config["up_block_types"][level] else 1
                return f"output_blocks.{first + layers}.{place}.conv.{kind}"
            block = f"output_blocks.{first + number}.{place}"
    if part == "resnets":
        rest = [RESNET[rest[0]]]
    return ".".join([block, *rest, kind])


def vae_key(key, config):
    """Original name of an autoencoder tensor, without the prefix, and its transform."""
    path, kind = key.rsplit(".", 1)
    parts = path.split(".")
    if parts[0] in ("quant_conv", "post_quant_conv"):
        return key, "same"
    side, name = parts[0], parts[1]
    if name == "mid_block" and parts[2] == "attentions":
        layer = VAE_ATTENTION[".".join(parts[4:])]
        linear = kind == "weight" and layer != "norm"
        return f"{side}.mid.attn_1.{layer}.{kind}", "conv1x1" if linear else "same"
    if name == "mid_block":
        place, layer = f"mid.block_{int(parts[3]) + 1}", parts[4]
    elif name in ("down_blocks", "up_blocks"):
        level = int(parts[2])
        if name == "up_blocks":  # the original counts levels by size, on both sides
            level = len(config["block_out_channels"]) - 1 - level
        place = f"{name.removesuffix('_blocks')}.{level}"
        if parts[3] == "resnets":
            place, layer = f"{place}.block.{parts[4]}", parts[5]
        else:
            place, layer = f"{place}.{parts[3].removesuffix('rs')}", "conv"
    else:
        return f"{side}.{name.replace('conv_norm_out', 'norm_out')}.{kind}", "same"
    return f"{side}.{place}.{layer.replace('conv_shortcut', 'nin_shortcut')}.{kind}", "same"


def open_clip_key(key, width):
    """OpenCLIP's name of a text model tensor, without the prefix, and its transform."""
    if key in OPEN_CLIP_ENDS:
        return OPEN_CLIP_ENDS[key], "same"
    if key == "text_projection.weight":
        return "text_projection", "transpose"
    number, path = key.removeprefix("text_model.encoder.layers.").split(".", 1)
    path, kind = path.rsplit(".", 1)
    layer = f"transformer.resblocks.{number}"
    if path in OPEN_CLIP_LAYER:
        return f"{layer}.{OPEN_CLIP_LAYER[path]}.{kind}", "same"
    third = "qkv".index(path.removeprefix("self_attn.")[0])
    return f"{layer}.attn.in_proj_{kind}", f"rows {third * width}..{(third + 1) * width}"


def original(family, component, key, config):
    """Original name and transform of one tensor of a diffusers folder."""
    if component == "unet":
        return UNET + unet_key(key, config), "same"
    if component == "vae":
        name, transform = vae_key(key, config)
        return VAE + name, transform
    if component == "text_encoder" and family in CLIP:
        return CLIP[family] + key, "same"
    name, transform = open_clip_key(key, config["hidden_size"])
    return OPEN_CLIP[family] + name, transform


def rows(family, configs):
    """Every tensor of the family as (original key, component, diffusers key, transform, shape), sorted."""
    table = []
    for component in families.components(family):
        config = configs[f"{component}/config.json"]
        for key, shape in families.shapes(component, config).items():
            name, transform = original(family, component, key, config)
            table.append((name, component, key, transform, shape))
    return sorted(table)


def unread_layer(family, configs):
    """Rows of what the file of SD 2.x holds and the diffusers folder does not: the last layer and the text projection."""
    if family != "sd21":
        return []
    config = configs["text_encoder/config.json"]
    width, last = config["hidden_size"], SD21_LAYERS - 1
    prefix = f"text_model.encoder.layers.{last}."
    before = f"text_model.encoder.layers.{last - 1}."
    shapes = {
        key.replace(before, prefix): shape
        for key, shape in families.shapes("text_encoder", config).items()
        if key.startswith(before)
    }
    shapes["text_projection.weight"] = (width, width)
    return sorted(
        (name, "text_encoder", key, transform, shape)
        for key, shape in shapes.items()
        for name, transform in [original(family, "text_encoder", key, config)]
    )


def to_original(transform, array):
    """One tensor as the original file holds it; a fused one only its own rows."""
    if transform == "conv1x1":
        return array[:, :, None, None]
    return array.T if transform == "transpose" else array


def tensors(family, configs):
    """Original key -> (shape, function that computes the f32 array), in the order of the file."""
    grouped = {}
    for name, component, key, transform, shape in sorted(rows(family, configs) + unread_layer(family, configs)):
        start = int(transform.split()[1].split("..")[0]) if transform.startswith("rows") else 0
        grouped.setdefault(name, []).append((start, component, key, transform, shape))
    result = {}
    for name, parts in grouped.items():
        parts.sort()
        first_shape, transform = parts[0][4], parts[0][3]
        shape = {"conv1x1": (*first_shape, 1, 1), "transpose": first_shape[::-1]}.get(
            transform, (len(parts) * first_shape[0], *first_shape[1:])
        )

        def compute(parts=parts):
            return np.concatenate([to_original(p[3], formula.weights(p[1], p[2], p[4])) for p in parts])

        result[name] = (shape, compute)
    return result


def extras(family):
    """What such files hold besides the weights: the schedule, counters and buffers, none of which a reader needs."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    kept = torch.cumprod(1 - betas, 0)
    positions = torch.arange(77).reshape(1, 77)
    if family == "sdxl":
        return {
            "conditioner.embedders.0.transformer.text_model.embeddings.position_ids": positions,
            "conditioner.embedders.1.model.logit_scale": torch.tensor(4.6055),
            "denoiser.sigmas": ((1 - kept) / kept).sqrt().flip(0).float(),
        }
    common_keys = {
        "alphas_cumprod": kept.float(),
        "alphas_cumprod_prev": torch.cat([torch.ones(1), kept[:-1].float()]),
        "betas": betas.float(),
        "log_one_minus_alphas_cumprod": (1 - kept).log().float(),
        "model_ema.decay": torch.tensor(0.9999),
        "model_ema.num_updates": torch.tensor(470000, dtype=torch.int32),
        "sqrt_alphas_cumprod": kept.sqrt().float(),
        "sqrt_one_minus_alphas_cumprod": (1 - kept).sqrt().float(),
    }
    if family == "sd14":
        return {
            **common_keys,
            "cond_stage_model.transformer.text_model.embeddings.position_ids": positions,
            "model_ema.diffusion_modelout2bias": torch.zeros(4),
        }
    return {
        **common_keys,
        "cond_stage_model.model.attn_mask": torch.full((77, 77), -math.inf).triu(1),
        "cond_stage_model.model.logit_scale": torch.tensor(4.6052),
    }


def converted(family, configs, checkpoint):
    """What diffusers' converters make of an original file: component -> state dict with the names of the folder."""
    from diffusers.loaders import single_file_utils as theirs

    result = {
        "unet": theirs.convert_ldm_unet_checkpoint(dict(checkpoint), configs["unet/config.json"]),
        "vae": theirs.convert_ldm_vae_checkpoint(dict(checkpoint), configs["vae/config.json"]),
    }
    if family in CLIP:
        result["text_encoder"] = theirs.convert_ldm_clip_checkpoint(dict(checkpoint))
    if family in OPEN_CLIP:
        component = "text_encoder" if family == "sd21" else "text_encoder_2"
        model = families.skeleton(component, configs[f"{component}/config.json"])
        result[component] = theirs.convert_open_clip_checkpoint(model, dict(checkpoint), prefix=OPEN_CLIP[family])
    return result


def verify(family, configs):
    """Raise unless diffusers converts the original file to exactly the folder: names, shapes and values."""
    checkpoint = {name: torch.from_numpy(np.ascontiguousarray(make())) for name, (_, make) in tensors(family, configs).items()}
    checkpoint.update(extras(family))
    for component, state in converted(family, configs, checkpoint).items():
        shapes = families.shapes(component, configs[f"{component}/config.json"])
        state = {key: tensor for key, tensor in state.items() if not key.endswith("position_ids")}
        if state.keys() != shapes.keys():
            raise SystemExit(f"{family} {component}: names differ: {sorted(state.keys() ^ shapes.keys())[:6]}")
        for key, shape in shapes.items():
            want = torch.from_numpy(formula.weights(component, key, shape))
            if state[key].shape != want.shape or not torch.equal(state[key], want):
                raise SystemExit(f"{family} {component}: {key} differs")
        print(f"{family} {component}: {len(shapes)} tensors equal")


def main():
    """Verify the three test models and write their tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--golden", type=Path, default="tests/peers/golden", help="folder of the tables (default: %(default)s)")
    args = parser.parse_args()

    torch.set_num_threads(1)
    common.quiet()
    args.golden.mkdir(parents=True, exist_ok=True)
    for family in families.NAMES:
        configs = families.configs(family)
        verify(family, configs)
        lines = [f"{name}\t{component}/{key}\t{transform}\n" for name, component, key, transform, _ in rows(family, configs)]
        path = args.golden / f"original_{family}.tsv"
        path.write_text("".join(lines))
        print(f"wrote {path}: {len(lines)} rows")


if __name__ == "__main__":
    main()
