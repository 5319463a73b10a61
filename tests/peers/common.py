"""What the peer scripts share: loading the model and the pieces of diffusers' own Attend-and-Excite."""

import argparse
import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read by the libraries below when they are imported

from contextlib import contextmanager
from importlib.metadata import version

import diffusers
import torch
import transformers
from diffusers import StableDiffusionAttendAndExcitePipeline, StableDiffusionPipeline
from diffusers.pipelines.deprecated.stable_diffusion_attend_and_excite.pipeline_stable_diffusion_attend_and_excite import (
    AttentionStore,
)

MAP_SIZE = (16, 16)
"""Size of the cross-attention maps that the loss reads."""

SCALE_FACTOR = 20.0
"""Step size of the latent update at the first step (the pipeline's default)."""


def positive(text):
    """An integer of at least 1, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def quiet():
    """Turn off the libraries' warnings and progress bars."""
    for logging in (diffusers.utils.logging, transformers.utils.logging):
        logging.set_verbosity_error()
        logging.disable_progress_bar()


def versions():
    """Versions of the packages that decide the numbers."""
    return {name: version(name) for name in ("diffusers", "torch", "transformers", "safetensors", "numpy")}


def load_pipelines(folder):
    """Load a diffusers folder in f32 on the CPU; return the plain and the Attend-and-Excite pipeline over the same weights."""
    quiet()
    plain = StableDiffusionPipeline.from_pretrained(
        folder,
        dtype=torch.float32,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        local_files_only=True,
    )
    guided = StableDiffusionAttendAndExcitePipeline(
        vae=plain.vae,
        text_encoder=plain.text_encoder,
        tokenizer=plain.tokenizer,
        unet=plain.unet,
        scheduler=plain.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    for pipeline in (plain, guided):
        pipeline.set_progress_bar_config(disable=True)
    return plain, guided


def initial_noise(pipeline, seed):
    """The noise [1,4,h,w] that the pipelines draw for this seed at the model's own size."""
    unet = pipeline.unet.config
    shape = (1, unet.in_channels, unet.sample_size, unet.sample_size)
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))


@torch.no_grad()
def encode(pipeline, prompt, negative=""):
    """Text states [1,77,d] of the negative prompt and of the prompt."""
    cond, uncond = pipeline.encode_prompt(prompt, "cpu", 1, True, negative_prompt=negative)
    return uncond, cond


@contextmanager
def recorded_attention(guided):
    """Within this block the UNet runs with the Attend-and-Excite processors and an empty attention store."""
    original = guided.unet.attn_processors
    guided.attention_store = AttentionStore(MAP_SIZE)
    guided.register_attention_control()
    try:
        yield guided.attention_store
    finally:
        guided.unet.set_attn_processor(original)


@contextmanager
def counted_refinements(guided, limit=None):
    """Within this block the pipeline's refinement iterations are counted: an entry each; with a limit, at most so many an event."""
    refine, update, iterations = guided._perform_iterative_refinement_step, guided._update_latent, []

    def counted_update(*args, **kwargs):
        iterations.append(None)
        return update(*args, **kwargs)

    def counted_refine(*args, **kwargs):
        guided._update_latent = counted_update
        try:
            return refine(*args, **kwargs, **({"max_refinement_steps": limit} if limit else {}))
        finally:
            guided._update_latent = update

    guided._perform_iterative_refinement_step = counted_refine
    try:
        yield iterations
    finally:
        guided._perform_iterative_refinement_step = refine


def subject_scores(guided, latents, t, cond, indices):
    """Smoothed maximum of each subject's map: the pipeline's gradient pass up to the loss (call in `recorded_attention`)."""
    guided.unet(latents, t, encoder_hidden_states=cond)
    guided.unet.zero_grad()
    return guided._aggregate_and_get_max_attention_per_token(indices=indices)


@torch.no_grad()
def noise_predictions(pipeline, latents, t, states):
    """Unconditional and conditional prediction from one pass of batch 2; `states` is [2,77,d], unconditional first."""
    doubled = pipeline.scheduler.scale_model_input(torch.cat([latents] * 2), t)
    return pipeline.unet(doubled, t, encoder_hidden_states=states).sample.chunk(2)
