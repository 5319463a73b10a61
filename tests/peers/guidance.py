"""Attend-and-Excite over any UNet and scheduler of diffusers: maps by the layers' names, the loss, the update, the loop."""

import math
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F

import common

GAIN = 100.0
THRESHOLDS = {0: 0.05, 10: 0.5, 20: 0.8}
MAX_ITER = 25
MAX_REFINEMENTS = 20
SIGMA_SPACE = ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler")
"""Schedulers whose latents carry noise of standard deviation sigma, and which scale them before the UNet sees them."""


class Recorder:
    """Attention processor that computes as the plain one does and keeps the probabilities, [heads, pixels, tokens]."""

    def __init__(self, kept):
        self.kept = kept

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None):
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))
        key = attn.head_to_batch_dim(attn.to_k(encoder_hidden_states))
        value = attn.head_to_batch_dim(attn.to_v(encoder_hidden_states))
        probabilities = attn.get_attention_scores(query, key, attention_mask)
        self.kept.append(probabilities)
        out = attn.batch_to_head_dim(torch.bmm(probabilities, value))
        return attn.to_out[1](attn.to_out[0](out))


@contextmanager
def recorded(unet, blocks):
    """Within this block the cross-attention of the named blocks (e.g. "down_blocks.2") is recorded; yields the list."""
    original, kept = unet.attn_processors, []
    prefixes = tuple(f"{block}." for block in blocks)
    chosen = [name for name in original if name.startswith(prefixes) and ".attn2." in name]
    if not chosen:
        raise ValueError(f"no cross-attention in {blocks}")
    unet.set_attn_processor({name: Recorder(kept) if name in chosen else old for name, old in original.items()})
    try:
        yield kept
    finally:
        unet.set_attn_processor(original)


def mean_map(kept, height, width):
    """Mean over layers and heads, [height, width, tokens]; empties the list."""
    stacked = torch.cat(kept)
    kept.clear()
    return stacked.mean(0).reshape(height, width, -1)


def smooth(image):
    """The pipeline's 3x3 smoothing: its kernel is a Gaussian of standard deviation sqrt(0.5), the border is reflected."""
    side = math.exp(-1)
    kernel = torch.tensor([side, 1, side]) / (1 + 2 * side)
    padded = F.pad(image[None, None], (1, 1, 1, 1), mode="reflect")
    return F.conv2d(padded, torch.outer(kernel, kernel)[None, None])[0, 0]


def scores(attention, indices, last):
    """Smoothed maximum of each subject's map; tokens 1 to `last` - 1 take part in the softmax."""
    sharp = (GAIN * attention[:, :, 1:last]).softmax(-1)
    return torch.stack([smooth(sharp[:, :, index - 1]).max() for index in indices])


def loss_of(values):
    """What the weakest subject lacks."""
    return (1 - values).clamp(min=0).max()


def step_sizes(count):
    """Factor of the gradient for each of the loop's steps."""
    return [common.SCALE_FACTOR * math.sqrt(value) for value in np.linspace(1.0, 0.5, count)]


def variance_factor(scheduler):
    """s^2: with the gradient times s^2, an update of noise-carrying latents is what it is for latents of unit variance."""
    if type(scheduler).__name__ not in SIGMA_SPACE:
        return 1.0
    return 1.0 + scheduler.sigmas[scheduler.step_index].item() ** 2


@dataclass
class Guidance:
    """What to look at: blocks whose maps count, the map's share of the latents' side, subjects, end of the softmax."""

    blocks: tuple
    divisor: int
    indices: tuple
    last: int
    thresholds: dict = field(default_factory=lambda: dict(THRESHOLDS))
    max_iter: int = MAX_ITER


class Model:
    """A UNet with the text states of one prompt; `added` holds SDXL's further conditions, by the same names."""

    def __init__(self, unet, cond, uncond, guidance_scale, added=None, added_uncond=None):
        self.unet, self.guidance_scale = unet, guidance_scale
        self.cond, self.uncond = (cond, added), (uncond, added_uncond)

    def predict(self, latents, t, condition):
        """The UNet's output for one condition."""
        states, added = condition
        return self.unet(latents, t, encoder_hidden_states=states, added_cond_kwargs=added).sample

    @torch.no_grad()
    def guided(self, latents, t):
        """Classifier-free guidance."""
        uncond = self.predict(latents, t, self.uncond)
        return uncond + self.guidance_scale * (self.predict(latents, t, self.cond) - uncond)

    def evaluate(self, scheduler, latents, t, guidance):
        """Loss and gradient at `latents`; with a scheduler, its scaling is part of what is differentiated."""
        height, width = (side // guidance.divisor for side in latents.shape[2:])
        with recorded(self.unet, guidance.blocks) as kept:
            leaf = latents.detach().clone().requires_grad_(True)
            scaled = scheduler.scale_model_input(leaf, t) if scheduler else leaf
            eps = self.predict(scaled, t, self.cond)
            attention = mean_map(kept, height, width)
            values = scores(attention, guidance.indices, guidance.last)
            loss = loss_of(values)
            gradient = torch.autograd.grad(loss, leaf)[0]
        found = {"eps_cond": eps, "map": attention, "scores": values, "loss": loss, "gradient": gradient}
        return {name: tensor.detach() for name, tensor in found.items()}


def updated(scheduler, latents, size, found):
    """The latents after one step down the gradient."""
    if found["loss"].item() == 0:
        return latents
    return latents - size * variance_factor(scheduler) * found["gradient"]


def refine(model, scheduler, latents, t, guidance, size, target, found):
    """Update until the weakest subject is strong enough; return the latents, their evaluation and the iterations.

    As in the pipeline, the loop tests the loss from before its own update, so it makes one update more than it finds
    necessary. The pipeline evaluates the incoming latents twice; here `found` is reused.
    """
    count, loss = 0, found["loss"].item()
    while loss > target and count < MAX_REFINEMENTS:
        count += 1
        loss = found["loss"].item()
        latents = updated(scheduler, latents, size, found)
        found = model.evaluate(scheduler, latents, t, guidance)
    return latents, found, count


@dataclass
class Trace:
    """What a run went through: latents after each step, first loss of each step (NaN: none), refinements of each step."""

    latents: list = field(default_factory=list)
    losses: list = field(default_factory=list)
    refinements: list = field(default_factory=list)


def excite(model, scheduler, latents, t, i, count, guidance, trace):
    """The update of step `i` of `count`, with the refinement that may precede it."""
    loss, refinements = math.nan, 0
    threshold = guidance.thresholds.get(i)
    if i < guidance.max_iter or threshold is not None:
        size = step_sizes(count)[i]
        found = model.evaluate(scheduler, latents, t, guidance)
        loss = found["loss"].item()
        if threshold is not None and loss > 1 - threshold:
            target = max(0.0, 1 - threshold)
            latents, found, refinements = refine(model, scheduler, latents, t, guidance, size, target, found)
        if i < guidance.max_iter:
            latents = updated(scheduler, latents, size, found)
    trace.losses.append(loss)
    trace.refinements.append(refinements)
    return latents


def run(model, scheduler, noise, steps, guidance=None, generator=None):
    """Denoise `noise` (of unit variance) in `steps` steps; plain without `guidance`. The generator is for ancestral steps."""
    scheduler.set_timesteps(steps)
    latents = noise * scheduler.init_noise_sigma
    extra = {"generator": generator} if generator else {}
    trace = Trace()
    for i, t in enumerate(scheduler.timesteps):
        if guidance:
            latents = excite(model, scheduler, latents, t, i, len(scheduler.timesteps), guidance, trace)
        prediction = model.guided(scheduler.scale_model_input(latents, t), t)
        latents = scheduler.step(prediction, t, latents, **extra).prev_sample
        trace.latents.append(latents)
    return trace
