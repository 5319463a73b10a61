"""Time diffusers on the CPU in f32: one step and one image, plain and with Attend-and-Excite, and guided images in a loop."""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

import common

PROMPT = "a lion and a elephant"
INDICES = [2, 5]
SEED = 0
STEPS = 50
GUIDANCE = 7.5
STEPS_TIMED = 8
"""Single steps timed in each repeat; as in crates/diffusion/benches/pipeline.rs."""

BATCH = Path("crates/diffusion/benches/batch.json")
"""The images that excite makes in one batch and diffusers one after the other."""


def seconds(run, repeats, prepare=lambda: None):
    """Wall times of `run`, their minimum and median, after one run that is not counted; `prepare` runs untimed before each."""
    times = []
    for _ in range(repeats + 1):
        prepare()
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return summary(times[1:])


def summary(times):
    """Times with their minimum and median."""
    return {"min": min(times), "median": statistics.median(times), "times": times}


@torch.no_grad()
def denoise(pipeline, latents, t, states):
    """Classifier-free guidance and the scheduler step: the part that both kinds of step have in common."""
    uncond, cond = common.noise_predictions(pipeline, latents, t, states)
    return pipeline.scheduler.step(uncond + GUIDANCE * (cond - uncond), t, latents).prev_sample


def guided_step(guided, latents, t, states):
    """One step as the Attend-and-Excite pipeline takes it: gradient pass, latent update, then `denoise`."""
    latents = latents.clone().detach().requires_grad_(True)
    loss = guided._compute_loss(common.subject_scores(guided, latents, t, states[1:], INDICES))
    latents = guided._update_latent(latents, loss, common.SCALE_FACTOR)
    return denoise(guided, latents, t, states)


def image(pipeline, prompt=PROMPT, seed=SEED, **extra):
    """One whole image."""
    generator = torch.Generator("cpu").manual_seed(seed)
    pipeline(
        prompt,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        generator=generator,
        output_type="np",
        **extra,
    )


def batch(guided, repeats):
    """Seconds of all images of the batch, one after the other, and the refinement iterations of each; all is warm by then."""
    members = json.loads(BATCH.read_text())
    times = []
    for _ in range(repeats):
        refinements = []
        start = time.perf_counter()
        for member in members:
            with common.counted_refinements(guided) as iterations:
                image(guided, member["prompt"], member["seed"], token_indices=member["indices"], attn_res=common.MAP_SIZE)
            refinements.append(len(iterations))
        times.append(time.perf_counter() - start)
    return {**summary(times), "refinements": refinements}


def measure(plain, guided, repeats):
    """All timings, in seconds."""
    noise = common.initial_noise(plain, SEED)
    states = torch.cat(common.encode(plain, PROMPT))
    restart = lambda: plain.scheduler.set_timesteps(STEPS)  # PNDM keeps a history; both pipelines share the scheduler
    restart()
    t = plain.scheduler.timesteps[0]

    steps = repeats * STEPS_TIMED
    result = {"plain_step": seconds(lambda: denoise(plain, noise, t, states), steps, restart)}
    with common.recorded_attention(guided):
        result["guided_step"] = seconds(lambda: guided_step(guided, noise, t, states), steps, restart)
    result["plain_image"] = seconds(lambda: image(plain), repeats)
    result["guided_image"] = seconds(
        lambda: image(guided, token_indices=INDICES, attn_res=common.MAP_SIZE), repeats
    )
    result["guided_batch"] = batch(guided, repeats)
    return result


def main():
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="models/emoji", help="diffusers folder (default: %(default)s)")
    parser.add_argument("--threads", type=common.positive, default=1, help="torch threads (default: %(default)s)")
    parser.add_argument("--repeats", type=common.positive, default=3, help="timed images of each kind (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    timings = measure(*common.load_pipelines(args.model), args.repeats)
    if args.json:
        print(json.dumps({"tool": "diffusers", "versions": common.versions(), "threads": args.threads, **timings}))
        return
    names = ", ".join(f"{name} {number}" for name, number in common.versions().items())
    print(f"{names}; threads {args.threads}, repeats {args.repeats}")
    print(f"{'seconds':<14}{'min':>10}{'median':>10}")
    for name, timing in timings.items():
        print(f"{name:<14}{timing['min']:>10.4f}{timing['median']:>10.4f}")
    print(f"refinement iterations in the batch: {timings['guided_batch']['refinements']}")


if __name__ == "__main__":
    main()
