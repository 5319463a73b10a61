"""Seconds of whole images with diffusers on the GPU in f16, plain and guided: the lines that image_seconds.rs prints."""

import argparse
import json
import os
import time

os.environ["HF_HUB_OFFLINE"] = "1"  # read by the libraries below when they are imported

import diffusers
import torch
from diffusers import StableDiffusionAttendAndExcitePipeline, StableDiffusionPipeline

PROMPT = "a cat and a frog"
INDICES = [2, 5]
WARM_UP = 2
"""Steps of the run that is not counted."""


def load(folder):
    """The plain and the Attend-and-Excite pipeline over the same weights."""
    diffusers.utils.logging.disable_progress_bar()
    options = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    plain = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float16, local_files_only=True, **options).to("cuda")
    parts = {name: getattr(plain, name) for name in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")}
    guided = StableDiffusionAttendAndExcitePipeline(**parts, **options)
    # Gradients of weights would only cost here; the pipeline does not need them.
    for part in (plain.unet, plain.vae, plain.text_encoder):
        part.requires_grad_(False)
    for pipeline in (plain, guided):
        pipeline.set_progress_bar_config(disable=True)
    return plain, guided


def images(plain, guided, what, batch, steps):
    """Make a batch; the Attend-and-Excite pipeline takes one prompt at a time."""
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in range(batch)]
    options = {"num_inference_steps": steps, "guidance_scale": 7.5, "output_type": "np"}
    if what == "plain":
        plain([PROMPT] * batch, generator=generators, **options)
    else:
        for generator in generators:
            guided(PROMPT, token_indices=INDICES, thresholds={}, max_iter_to_alter=25, generator=generator, **options)
    torch.cuda.synchronize()


def main():
    """Read the options, measure, print a line as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="diffusers folder")
    parser.add_argument("--batches", default="1,2,4,8", help="images together (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=50, help="(default: %(default)s)")
    args = parser.parse_args()

    began = time.perf_counter()
    plain, guided = load(args.model)
    versions = {"torch": torch.__version__, "diffusers": diffusers.__version__}
    print(json.dumps({"what": "load", "seconds": time.perf_counter() - began, "versions": versions}), flush=True)
    for batch in map(int, args.batches.split(",")):
        for what in ("plain", "guided"):
            images(plain, guided, what, batch, WARM_UP)
            began = time.perf_counter()
            images(plain, guided, what, batch, args.steps)
            seconds = time.perf_counter() - began
            line = {"what": what, "batch": batch, "steps": args.steps, "seconds": seconds, "seconds_per_image": seconds / batch}
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
