"""Time the passes of a model of the true size with diffusers on the CPU in f32, or see how much memory an image takes."""

import argparse
import json
import statistics
import time

import torch

import common

PROMPT = "a cat and a frog"
INDICES = [2, 5]
SEED = 0
STEPS = 50
GUIDANCE = 7.5
STEPS_OF_MEMORY = 2
"""PNDM makes one more; as in crates/diffusion/benches/full_size.rs."""


def seconds(run, repeats):
    """Wall times of `run`, their minimum and median."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return {"min": min(times), "median": statistics.median(times), "times": times}


def measure(plain, guided, repeats):
    """The passes of the first step: one prediction, two in a batch, and the gradient pass as the pipeline makes it."""
    noise = common.initial_noise(plain, SEED)
    states = torch.cat(common.encode(plain, PROMPT))
    plain.scheduler.set_timesteps(STEPS)
    t = plain.scheduler.timesteps[0]

    @torch.no_grad()
    def forward():
        plain.unet(noise, t, encoder_hidden_states=states[1:])

    def gradient():
        latents = noise.clone().detach().requires_grad_(True)
        loss = guided._compute_loss(common.subject_scores(guided, latents, t, states[1:], INDICES))
        guided._update_latent(latents, loss, common.SCALE_FACTOR)

    forward()  # the first one finds caches and pages cold
    result = {
        "forward": seconds(forward, repeats),
        "forward_of_two": seconds(lambda: common.noise_predictions(plain, noise, t, states), repeats),
    }
    with common.recorded_attention(guided):
        result["gradient"] = seconds(gradient, repeats)
    return result


def memory(guided):
    """Make an image that is guided, refined once and decoded; then the most memory that this process had."""
    with common.counted_refinements(guided, limit=1) as iterations:
        guided(
            PROMPT,
            token_indices=INDICES,
            attn_res=common.MAP_SIZE,
            num_inference_steps=STEPS_OF_MEMORY,
            guidance_scale=GUIDANCE,
            thresholds={0: 1.0},  # no attention is more than 1, so the first step is refined whatever the weights are
            generator=torch.Generator("cpu").manual_seed(SEED),
            output_type="np",
        )
    return {"peak_bytes": peak_bytes(), "refinements": len(iterations)}


def peak_bytes():
    """The most memory that this process had."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def main():
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="diffusers folder")
    parser.add_argument("--memory", action="store_true", help="make one guided, refined image of two steps and say what memory that took at most")
    parser.add_argument("--threads", type=common.positive, default=1, help="torch threads (default: %(default)s)")
    parser.add_argument("--repeats", type=common.positive, default=1, help="timed passes of each kind (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    plain, guided = common.load_pipelines(args.model)
    found = memory(guided) if args.memory else measure(plain, guided, args.repeats)
    if args.json:
        print(json.dumps({"tool": "diffusers", "versions": common.versions(), "threads": args.threads, **found}))
    elif args.memory:
        print(f"{found['peak_bytes']} bytes at most")
    else:
        print(f"{'seconds':<16}{'min':>10}{'median':>10}")
        for name, timing in found.items():
            print(f"{name:<16}{timing['min']:>10.4f}{timing['median']:>10.4f}")


if __name__ == "__main__":
    main()
