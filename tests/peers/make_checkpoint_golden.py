"""Write the figures of the three test models: text states, UNet, maps, loss and gradient, autoencoder, short runs; and their configurations."""

import argparse
import json
import tempfile
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from safetensors.torch import save_file

import common
import families
import guidance
import make_checkpoints

PROMPT, NEGATIVE = "a cat and a frog", "blurry"
INDICES = (2, 5)
TIMESTEP = 501
GUIDANCE_SCALE = 5.0
PLAIN_STEPS, GUIDED_STEPS = 4, 3
SIZES = {"square": (32, 32), "wide": (16, 40)}
"""Height and width of the latents; the maps have a quarter of each side."""

NOISE_SEED, LATENT_SEED, IMAGE_SEED = 7, 11, 12

BLOCKS = {
    "sd14": ("down_blocks.2", "up_blocks.1"),
    "sd21": ("down_blocks.2", "up_blocks.1"),
    "sdxl": ("down_blocks.2", "mid_block", "up_blocks.0"),
}
"""Where the maps come from: the UNet's level at a quarter of the latents' size. In SD, the middle block is one level below."""


def randn(seed, *shape):
    """torch's normal numbers for a CPU generator."""
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))


def load(folder, family):
    """The pipeline of a test model, f32."""
    parts = {} if family == "sdxl" else {"safety_checker": None, "feature_extractor": None}
    return DiffusionPipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True, **parts)


@torch.no_grad()
def text_figures(pipeline, family):
    """Token ids and what the pipeline's own `encode_prompt` makes of the prompts."""
    ids = lambda tokenizer: tokenizer(PROMPT, padding="max_length", max_length=77, return_tensors="pt").input_ids[0].int()
    figures = {"token_ids": ids(pipeline.tokenizer)}
    if family != "sdxl":
        cond, uncond = pipeline.encode_prompt(PROMPT, "cpu", 1, True, negative_prompt=NEGATIVE)
        return {**figures, "text_states": cond[0], "uncond_text_states": uncond[0]}
    cond, uncond, pooled, uncond_pooled = pipeline.encode_prompt(PROMPT, device="cpu", negative_prompt=NEGATIVE)
    return {
        **figures,
        "token_ids_2": ids(pipeline.tokenizer_2),
        "text_states": cond[0],
        "uncond_text_states": uncond[0],
        "pooled": pooled[0],
        "uncond_pooled": uncond_pooled[0],
    }


def conditioned(pipeline, family, text, size):
    """The UNet with the prompt's conditions; SDXL's also say the picture's size, eight times the latents'."""
    height, width = (8.0 * side for side in size)
    time_ids = torch.tensor([[height, width, 0.0, 0.0, height, width]])
    added = lambda name: {"text_embeds": text[name][None], "time_ids": time_ids} if family == "sdxl" else None
    states = text["text_states"][None], text["uncond_text_states"][None]
    return guidance.Model(pipeline.unet, *states, GUIDANCE_SCALE, added("pooled"), added("uncond_pooled"))


def attend(family, text, **more):
    """What the loss looks at. SD 1.x: all tokens but the first and the last; the others: the prompt's own."""
    end = text["token_ids"].tolist().index(49407)
    last = 76 if family == "sd14" else end
    return guidance.Guidance(BLOCKS[family], 4, INDICES, last, **more)


@torch.no_grad()
def vae_figures(vae):
    """Both halves of the autoencoder, without the scaling factor."""
    z = randn(LATENT_SEED, 1, 4, 8, 8)
    image = randn(IMAGE_SEED, 1, 3, 64, 64).tanh()
    posterior = vae.encode(image).latent_dist
    found = {"z": z, "decoded": vae.decode(z).sample, "image": image, "mean": posterior.mean, "logvar": posterior.logvar}
    return {f"vae.{name}": tensor[0] for name, tensor in found.items()}


def figures(pipeline, family):
    """Every tensor of the file."""
    text = text_figures(pipeline, family)
    result = dict(text)
    for name, size in SIZES.items():
        noise = randn(NOISE_SEED, 1, 4, *size)
        found = conditioned(pipeline, family, text, size).evaluate(None, noise, torch.tensor(TIMESTEP), attend(family, text))
        result[f"{name}.noise"] = noise[0]
        result.update({f"{name}.{key}": tensor.reshape(1) if tensor.ndim == 0 else tensor for key, tensor in found.items()})
        for key in ("eps_cond", "gradient"):
            result[f"{name}.{key}"] = found[key][0]
    result.update(vae_figures(pipeline.vae))

    model = conditioned(pipeline, family, text, SIZES["square"])
    noise = result["square.noise"][None]
    plain = guidance.run(model, pipeline.scheduler, noise, PLAIN_STEPS)
    result["plain.timesteps"] = pipeline.scheduler.timesteps.float()
    result["plain.latents"] = torch.cat(plain.latents)
    guided = guidance.run(model, pipeline.scheduler, noise, GUIDED_STEPS, attend(family, text, thresholds={}))
    result["guided.timesteps"] = pipeline.scheduler.timesteps.float()
    result["guided.latents"] = torch.cat(guided.latents)
    result["guided.losses"] = torch.tensor(guided.losses)
    return {name: tensor.detach().contiguous() for name, tensor in result.items()}


def describe(family):
    """The configuration files and every tensor's shape, one line of JSON."""
    configs = families.configs(family)
    shapes = {part: families.shapes(part, configs[f"{part}/config.json"]) for part in families.components(family)}
    return families.compact({"configs": configs, "tensors": shapes}) + "\n"


def report(name, tensor):
    """A line on a tensor's magnitude."""
    values = tensor.double()
    spread = f"{values.std():.4g}" if values.numel() > 1 else "-"
    print(f"  {name:<20} {list(tensor.shape)!s:<18} {values.min():+11.5g} .. {values.max():+11.5g}  std {spread}")


def main():
    """Read the options; for each family, write the model to a temporary folder, compute, write the figures, print a summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--golden", type=Path, default="tests/peers/golden", help="folder to write to (default: %(default)s)")
    parser.add_argument("--family", choices=families.NAMES, action="append", help="only this one (default: all)")
    parser.add_argument("--tokenizer", type=Path, default="models/emoji/tokenizer", help="CLIP's vocabulary (default: %(default)s)")
    args = parser.parse_args()

    torch.set_num_threads(1)  # the order of sums, and so the last bits, may depend on the number of threads
    common.quiet()
    args.golden.mkdir(parents=True, exist_ok=True)
    for family in args.family or families.NAMES:
        (args.golden / f"{family}.json").write_text(describe(family))
        with tempfile.TemporaryDirectory() as folder:
            make_checkpoints.write_folder(Path(folder), family, tokenizer=args.tokenizer)
            tensors = figures(load(folder, family), family)
        path = args.golden / f"{family}.safetensors"
        save_file(tensors, path, {"versions": json.dumps(common.versions())})  # one key: safetensors shuffles them
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
        for name, tensor in tensors.items():
            report(name, tensor)


if __name__ == "__main__":
    main()
