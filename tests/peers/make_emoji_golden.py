"""Write runs of the bundled model with seven schedulers, plain and with Attend-and-Excite."""

import argparse
import json
from pathlib import Path

import diffusers
import torch
from safetensors.torch import save_file

import common
import guidance

PROMPT, INDICES, SEED = "a cat and a frog", (2, 5), 3
STEPS, GUIDANCE_SCALE = 20, 7.5
KEPT = (0, 1, 2, 9, -1)
"""Steps whose latents are kept."""

SCHEDULERS = {
    "pndm": ("PNDMScheduler", {}),
    "ddim": ("DDIMScheduler", {"clip_sample": False}),  # the class clips unless told not to; the model's file does not say
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_karras": ("EulerDiscreteScheduler", {"use_karras_sigmas": True}),
    "euler_ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {}),
    "dpmpp_2m_karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
}

BLOCKS = ("down_blocks.0", "up_blocks.1")
"""Where this model has 16x16 maps."""

MOVED = 1 + 1e-6
"""Factor of the noise in the run that shows how sensitive the result is."""


def scheduler_for(name, config):
    """A fresh scheduler of this name over the model's configuration."""
    class_name, options = SCHEDULERS[name]
    return getattr(diffusers, class_name).from_config(config, **options)


def generator():
    """The image's generator: first the noise, then what ancestral steps add."""
    return torch.Generator("cpu").manual_seed(SEED)


def run(model, name, config, attend, factor=1.0):
    """One run from the seed."""
    scheduler, source = scheduler_for(name, config), generator()
    noise = torch.randn(1, 4, *common.MAP_SIZE, generator=source) * factor
    return guidance.run(model, scheduler, noise, STEPS, attend, source if name == "euler_ancestral" else None), scheduler


def compare(guided, name, config, trace):
    """Difference of the final latents to diffusers' own Attend-and-Excite pipeline (which handles PNDM and DDIM alone)."""
    guided.scheduler = scheduler_for(name, config)
    latents = guided(
        PROMPT,
        token_indices=list(INDICES),
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE_SCALE,
        generator=generator(),
        thresholds=guidance.THRESHOLDS,
        max_iter_to_alter=guidance.MAX_ITER,
        attn_res=common.MAP_SIZE,
        output_type="latent",
    ).images
    return (latents - trace.latents[-1]).abs().max().item()


def main():
    """Read the options, run, write, print a line for each run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="models/emoji", help="diffusers folder (default: %(default)s)")
    parser.add_argument("--golden", type=Path, default="tests/peers/golden", help="folder to write to (default: %(default)s)")
    args = parser.parse_args()

    torch.set_num_threads(1)
    plain, guided = common.load_pipelines(args.model)
    config = plain.scheduler.config
    uncond, cond = common.encode(plain, PROMPT)
    model = guidance.Model(plain.unet, cond, uncond, GUIDANCE_SCALE)
    attend = guidance.Guidance(BLOCKS, 1, INDICES, 76)

    source = generator()
    draw = lambda: torch.randn(4, *common.MAP_SIZE, generator=source)
    tensors = {"noise": draw(), "euler_ancestral.step_noise": torch.stack([draw() for _ in range(STEPS)])}
    for name in SCHEDULERS:
        for kind, looks in (("plain", None), ("guided", attend)):
            trace, scheduler = run(model, name, config, looks)
            moved, _ = run(model, name, config, looks, MOVED)
            distance = (moved.latents[-1] - trace.latents[-1]).abs().max()
            run_name = f"{name}.{kind}"
            tensors[f"{run_name}.latents"] = torch.cat([trace.latents[step] for step in KEPT])
            tensors[f"{run_name}.moved"] = distance.reshape(1)
            line = f"{run_name:<24} final latents up to {trace.latents[-1].abs().max():.3f}, moved {distance:.2e}"
            if looks:
                tensors[f"{run_name}.losses"] = torch.tensor(trace.losses)
                tensors[f"{run_name}.refinements"] = torch.tensor(trace.refinements, dtype=torch.int32)
                tensors[f"{name}.timesteps"] = scheduler.timesteps.float()
                counts = {step: count for step, count in enumerate(trace.refinements) if count}
                line += f", losses {trace.losses[0]:.3f} .. {trace.losses[-1]:.3f}, refinements {counts}"
                if name in ("pndm", "ddim"):
                    line += f", from diffusers' pipeline {compare(guided, name, config, trace):.1e}"
            print(line, flush=True)

    case = {"prompt": PROMPT, "indices": INDICES, "seed": SEED, "steps": STEPS, "guidance": GUIDANCE_SCALE, "kept": KEPT}
    case["versions"] = common.versions()  # one key in the file: safetensors shuffles them
    path = args.golden / "emoji_schedulers.safetensors"
    tensors = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    save_file(tensors, path, {"case": json.dumps(case)})
    print(f"wrote {path}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
