"""Recompute the inputs and the `first_*` tensors of one golden case with diffusers; print the differences or write the new values."""

import argparse
import json
import sys
from pathlib import Path

import torch
from diffusers import DDIMScheduler
from safetensors import safe_open
from safetensors.torch import save_file

import common

ABSOLUTE = {"token_ids": 0.0, "noise": 2e-6, "first_scores": 2e-3, "first_loss": 2e-3}
"""Tolerances of golden/README.md on the absolute difference."""

RELATIVE = {"first_gradient": 1e-3}
"""Tolerances relative to the largest value; 2e-4 for every other tensor."""


def read(path):
    """The tensors of a golden file and its metadata."""
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()


def recompute(guided, case):
    """What diffusers computes for this case before the first update, under the names of the golden file."""
    if case.get("scheduler") == "ddim":
        guided.scheduler = DDIMScheduler.from_config(guided.scheduler.config)
    guided.scheduler.set_timesteps(case.get("steps", 50))
    t = guided.scheduler.timesteps[0]
    noise = common.initial_noise(guided, case["seed"])
    tokens = guided.tokenizer(case["prompt"], padding="max_length", max_length=77, return_tensors="pt").input_ids
    uncond, cond = common.encode(guided, case["prompt"], case.get("neg", ""))

    with common.recorded_attention(guided) as store:
        latents = noise.clone().requires_grad_(True)
        scores = common.subject_scores(guided, latents, t, cond, case["indices"])
        loss = guided._compute_loss(scores)
        gradient = torch.autograd.grad(loss, latents)[0]
        with torch.no_grad():
            # The loss multiplies a view of its map by 100 in place, but that map is a fresh sum at each call.
            attention = store.aggregate_attention(("up", "down", "mid"))
        eps_uncond, eps_cond = common.noise_predictions(guided, noise, t, torch.cat([uncond, cond]))

    return {
        "token_ids": tokens[0],
        "noise": noise[0],
        "text_states": cond[0],
        "uncond_text_states": uncond[0],
        "first_map": attention,
        "first_scores": torch.stack(scores),
        "first_loss": loss.reshape(1),
        "first_gradient": gradient[0],
        "first_eps_uncond": eps_uncond[0],
        "first_eps_cond": eps_cond[0],
    }


def main():
    """Read the options, recompute, print a line for each tensor; exit status 1 if one is out of tolerance."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="models/emoji", help="diffusers folder (default: %(default)s)")
    parser.add_argument("--golden", type=Path, default="golden", help="folder of the golden data (default: %(default)s)")
    parser.add_argument("--case", default="guided_pndm", help="a guided case (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help="put the recomputed values into the file where they are out of tolerance")
    args = parser.parse_args()

    path = args.golden / f"{args.case}.safetensors"
    expected, metadata = read(path)
    case = json.loads(metadata["case"])
    if "first_map" not in expected:
        parser.error(f"{args.case} has no first_* tensors: choose a guided case")
    _, guided = common.load_pipelines(args.model)

    print(f"{args.case}: \"{case['prompt']}\", seed {case['seed']}")
    print(f"{'tensor':<20}{'largest':>11}{'max diff':>11}{'relative':>11}{'tolerance':>13}")
    bad = 0
    for name, actual in recompute(guided, case).items():
        want = expected[name].double()
        if actual.shape != want.shape:
            sys.exit(f"{name}: shape {list(actual.shape)}, expected {list(want.shape)}")
        largest = want.abs().max().item()
        difference = (actual.detach().double() - want).abs().max().item()
        relative = difference / largest
        if name in ABSOLUTE:
            within, tolerance = difference <= ABSOLUTE[name], f"{ABSOLUTE[name]:.0e} abs"
        else:
            limit = RELATIVE.get(name, 2e-4)
            within, tolerance = relative <= limit, f"{limit:.0e} rel"
        if not within:
            bad += 1
            expected[name] = actual.detach().to(expected[name].dtype).contiguous()
        print(f"{name:<20}{largest:>11.4g}{difference:>11.2e}{relative:>11.2e}{tolerance:>13}{'' if within else '  FAIL'}")
    if bad and args.write:
        save_file(expected, path, metadata)
        print(f"wrote {bad} tensors to {path}")
    elif bad:
        sys.exit(f"{bad} tensors out of tolerance")


if __name__ == "__main__":
    main()
