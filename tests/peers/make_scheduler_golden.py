"""Write the scheduler rows: diffusers' schedulers fed with made-up model outputs, over their options and numbers of steps."""

import argparse
import json
import math
from pathlib import Path

import diffusers
import numpy as np
import torch
from diffusers.schedulers import scheduling_euler_ancestral_discrete as ancestral

import common
import families

ELEMENTS = 16
SHAPE = (1, 4, 2, 2)

V = {"prediction_type": "v_prediction"}
LINEAR = {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02}
KARRAS = {"use_karras_sigmas": True}
SIGMA_MIN = {"final_sigmas_type": "sigma_min"}
ALPHA_ONE = {"set_alpha_to_one": True}


def spacing(kind, offset=0):
    """Options that place the timesteps."""
    return {"timestep_spacing": kind, "steps_offset": offset}


LEADING, LINSPACE, TRAILING = spacing("leading", 1), spacing("linspace"), spacing("trailing")

CASES = {
    "PNDMScheduler": [
        ("sd14", 50, {}),
        ("sd14", 5, {}),
        ("sd14", 1, {}),
        ("sd14", 2, {}),
        ("sd14", 12, ALPHA_ONE),
        (None, 20, spacing("leading")),
        (None, 12, LINSPACE),
        (None, 20, TRAILING),
        (None, 12, {**LEADING, **V}),
        (None, 5, {**spacing("leading"), **LINEAR}),
    ],
    "DDIMScheduler": [
        ("sd21", 50, {}),
        ("sd21", 5, {}),
        ("sd21", 1, {}),
        ("sd21", 2, {}),
        ("sd14", 20, {}),
        (None, 12, {**spacing("leading"), **ALPHA_ONE}),
        (None, 12, {**spacing("linspace", 1), "set_alpha_to_one": False}),
        (None, 20, {**TRAILING, **V, **ALPHA_ONE}),
        (None, 5, {**TRAILING, "set_alpha_to_one": False}),
        (None, 5, {**spacing("leading"), **LINEAR, **ALPHA_ONE}),
    ],
    "EulerDiscreteScheduler": [
        ("sdxl", 50, {}),
        ("sdxl", 5, {}),
        ("sdxl", 1, {}),
        ("sdxl", 2, {}),
        ("sdxl", 12, KARRAS),
        ("sd14", 20, {}),
        (None, 5, {**LINSPACE, **KARRAS}),
        (None, 20, {**TRAILING, **KARRAS, **V}),
        (None, 12, TRAILING),
        (None, 12, {**LINSPACE, **V}),
        (None, 5, {**LEADING, **SIGMA_MIN}),
        (None, 5, {**spacing("leading"), **LINEAR}),
    ],
    "EulerAncestralDiscreteScheduler": [
        ("sd14", 20, {}),
        ("sdxl", 12, {}),
        ("sd21", 50, {}),
        (None, 1, LINSPACE),
        (None, 2, {**LEADING, **V}),
        (None, 5, {**TRAILING, **V}),
        (None, 5, {**spacing("leading"), **LINEAR}),
    ],
    "DPMSolverMultistepScheduler": [
        ("sd14", 20, {}),
        ("sd14", 50, {}),
        ("sd14", 12, {}),
        ("sd14", 1, {}),
        ("sd14", 2, {}),
        ("sdxl", 20, KARRAS),
        ("sd21", 12, KARRAS),
        (None, 50, {**LINSPACE, **KARRAS}),
        (None, 20, LEADING),
        (None, 12, TRAILING),
        (None, 5, {**LEADING, **V}),
        (None, 12, {**LINSPACE, "solver_type": "heun"}),
        (None, 20, {**LINSPACE, "euler_at_final": True}),
        (None, 20, {**LINSPACE, **SIGMA_MIN}),
        (None, 5, {**LEADING, **SIGMA_MIN}),
        (None, 5, {**LINSPACE, **SIGMA_MIN, "lower_order_final": False}),
        (None, 20, {**LINSPACE, **SIGMA_MIN, "euler_at_final": True}),
        (None, 5, {**spacing("leading"), **LINEAR}),
    ],
}
"""Class -> rows: the family whose shipped configuration the options are added to (or none), steps, options."""

ALWAYS = {"PNDMScheduler": {"skip_prk_steps": True}, "DDIMScheduler": {"clip_sample": False}}
"""Options that Stable Diffusion's configurations set and the classes do not."""


def tensor(function):
    """A tensor of SHAPE whose element j is `function(j)`, worked out in double precision and rounded."""
    return torch.tensor([function(j) for j in range(ELEMENTS)], dtype=torch.float64).float().reshape(SHAPE)


def numbers(values):
    """A flat list that prints each f32 in its shortest form."""
    return [float(str(value)) for value in np.asarray(values, np.float32).reshape(-1)]


def row(name, config, steps):
    """Run one scheduler over all its steps."""
    scheduler = getattr(diffusers, name).from_config(config)
    scheduler.set_timesteps(steps)
    sample = tensor(lambda j: math.cos(0.9 * j)) * scheduler.init_noise_sigma
    initial, scales, outputs = float(scheduler.init_noise_sigma), [], []
    for k, t in enumerate(scheduler.timesteps):
        scales.append(scheduler.scale_model_input(torch.ones(1), t))
        ancestral.randn_tensor = lambda *_, k=k, **__: tensor(lambda j: math.sin(2.1 * j + 0.4 * k + 0.5))
        sample = scheduler.step(tensor(lambda j: math.sin(0.7 * j + 1.3 * k)), t, sample).prev_sample
        outputs.append(numbers(sample))
    timesteps = scheduler.timesteps
    return {
        "class": name,
        "config": config,
        "steps": steps,
        "timesteps": numbers(timesteps) if timesteps.is_floating_point() else timesteps.tolist(),
        "init_noise_sigma": numbers(initial)[0],
        "scales": numbers(torch.cat(scales)),
        "outputs": outputs,
    }


def all_rows():
    """Every row of CASES."""
    for name, cases in CASES.items():
        for family, steps, options in cases:
            shipped = families.SCHEDULERS[family] if family else {**families.BETAS, **ALWAYS.get(name, {})}
            yield row(name, {**shipped, **options}, steps)


def main():
    """Read the options, compute, write, print a line for each row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--golden", type=Path, default="tests/peers/golden", help="folder to write to (default: %(default)s)")
    args = parser.parse_args()

    torch.set_num_threads(1)
    common.quiet()
    rows = list(all_rows())
    for number, found in enumerate(rows):
        largest = max(abs(value) for output in found["outputs"] for value in output)
        last = max(abs(value) for value in found["outputs"][-1])
        first = ", ".join(f"{t:g}" for t in found["timesteps"][:3])
        print(f"{number:>2} {found['class']:<32} {found['steps']:>2} steps, {len(found['outputs']):>2} calls ({first}, ..)", end=" ")
        print(f"sigma {found['init_noise_sigma']:.5g}, largest {largest:.4g}, last {last:.4g}")
        if not math.isfinite(largest):
            raise SystemExit("not finite")
    path = args.golden / "schedulers.json"
    path.write_text("[\n" + ",\n".join(families.compact(found) for found in rows) + "\n]\n")
    print(f"wrote {path}: {len(rows)} rows, {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
