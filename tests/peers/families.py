"""The three families of Stable Diffusion that the test models imitate: their configurations at the true and at a small size."""

import copy
import json
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

NAMES = ("sd14", "sd21", "sdxl")

ADDED_TOKEN = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}


def special_tokens(pad):
    """A special_tokens_map.json as the models ship it; `pad` is the only entry that differs."""
    start, end = ({"content": text, **ADDED_TOKEN} for text in ("<|startoftext|>", "<|endoftext|>"))
    return {"bos_token": start, "eos_token": end, "pad_token": pad, "unk_token": end}


@dataclass(frozen=True)
class Text:
    """Sizes of a CLIP text model."""

    layers: int
    heads: int
    width: int
    activation: str
    projection: int
    class_name: str = "CLIPTextModel"

    def config(self):
        """Its config.json; the token ids are those shipped, of which only `eos_token_id` 2 matters (pooling at the largest id)."""
        return {
            "architectures": [self.class_name],
            "attention_dropout": 0.0,
            "bos_token_id": 0,
            "dropout": 0.0,
            "eos_token_id": 2,
            "hidden_act": self.activation,
            "hidden_size": self.width,
            "initializer_factor": 1.0,
            "initializer_range": 0.02,
            "intermediate_size": 4 * self.width,
            "layer_norm_eps": 1e-05,
            "max_position_embeddings": 77,
            "model_type": "clip_text_model",
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "pad_token_id": 1,
            "projection_dim": self.projection,
            "vocab_size": 49408,
        }


def vae_config(channels, sample_size, **more):
    """config.json of the autoencoder; SD 1.x and 2.x leave `scaling_factor` to its default, 0.18215."""
    return {
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": channels,
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "in_channels": 3,
        "latent_channels": 4,
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "out_channels": 3,
        "sample_size": sample_size,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        **more,
    }


def unet_config(channels, groups, context, sample_size, heads, **more):
    """config.json of the UNet of SD 1.x; the others add to it."""
    return {
        "_class_name": "UNet2DConditionModel",
        "act_fn": "silu",
        "attention_head_dim": heads,  # the number of heads, whatever its name says
        "block_out_channels": channels,
        "center_input_sample": False,
        "cross_attention_dim": context,
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "in_channels": 4,
        "layers_per_block": 2,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-05,
        "norm_num_groups": groups,
        "out_channels": 4,
        "sample_size": sample_size,
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
        **more,
    }


def index(class_name, components, **more):
    """model_index.json; `components` maps a folder to its class."""
    library = lambda name: "transformers" if name.startswith("CLIP") else "diffusers"
    return {"_class_name": class_name, **{part: [library(name), name] for part, name in components.items()}, **more}


BETAS = {"beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "num_train_timesteps": 1000}

SCHEDULERS = {
    "sd14": {
        "_class_name": "PNDMScheduler",
        "_diffusers_version": "0.7.0.dev0",
        **BETAS,
        "clip_sample": False,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "trained_betas": None,
    },
    "sd21": {
        "_class_name": "DDIMScheduler",
        "_diffusers_version": "0.8.0",
        **BETAS,
        "clip_sample": False,
        "prediction_type": "v_prediction",
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "trained_betas": None,
    },
    "sdxl": {
        "_class_name": "EulerDiscreteScheduler",
        "_diffusers_version": "0.19.0.dev0",
        **BETAS,
        "clip_sample": False,
        "interpolation_type": "linear",
        "prediction_type": "epsilon",
        "sample_max_value": 1.0,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "timestep_spacing": "leading",
        "trained_betas": None,
        "use_karras_sigmas": False,
    },
}
"""scheduler_config.json as SD 1.4, SD 2.1 (768) and SDXL base 1.0 ship it."""

ONE_TEXT_ENCODER = {
    "scheduler": "PNDMScheduler",
    "text_encoder": "CLIPTextModel",
    "tokenizer": "CLIPTokenizer",
    "unet": "UNet2DConditionModel",
    "vae": "AutoencoderKL",
}


def sd14(full):
    """Stable Diffusion 1.4."""
    channels, context = ([320, 640, 1280, 1280], 768) if full else ([32, 64, 128, 128], 48)
    return {
        "model_index.json": index("StableDiffusionPipeline", ONE_TEXT_ENCODER),
        "unet/config.json": unet_config(channels, 32, context, 64, 8, _diffusers_version="0.2.2"),
        "vae/config.json": vae_config(vae_channels(full), 512, _diffusers_version="0.2.2"),
        "text_encoder/config.json": Text(12, 12, context, "quick_gelu", context).config(),
        "tokenizer/special_tokens_map.json": special_tokens("<|endoftext|>"),
    }


def sd21(full):
    """Stable Diffusion 2.1 at 768 pixels."""
    channels, groups, context = ([320, 640, 1280, 1280], 32, 1024) if full else ([40, 80, 160, 160], 8, 64)
    more = {
        "_diffusers_version": "0.10.0.dev0",
        "dual_cross_attention": False,
        "num_class_embeds": None,
        "only_cross_attention": False,
        "upcast_attention": True,
        "use_linear_projection": True,
    }
    return {
        "model_index.json": index("StableDiffusionPipeline", {**ONE_TEXT_ENCODER, "scheduler": "DDIMScheduler"}),
        "unet/config.json": unet_config(channels, groups, context, 96, [5, 10, 20, 20], **more),
        "vae/config.json": vae_config(vae_channels(full), 768, _diffusers_version="0.10.0.dev0"),
        "text_encoder/config.json": Text(23, 16, context, "gelu", context // 2).config(),
        "tokenizer/special_tokens_map.json": special_tokens("!"),
    }


def sdxl(full):
    """Stable Diffusion XL base 1.0."""
    channels, groups, widths, time_width = ([320, 640, 1280], 32, (768, 1280), 256) if full else ([40, 80, 160], 8, (48, 80), 32)
    more = {
        "_diffusers_version": "0.19.0.dev0",
        "addition_embed_type": "text_time",
        "addition_embed_type_num_heads": 64,
        "addition_time_embed_dim": time_width,
        "class_embed_type": None,
        "class_embeddings_concat": False,
        "conv_in_kernel": 3,
        "conv_out_kernel": 3,
        "cross_attention_norm": None,
        "down_block_types": ["DownBlock2D"] + ["CrossAttnDownBlock2D"] * 2,
        "dual_cross_attention": False,
        "encoder_hid_dim": None,
        "encoder_hid_dim_type": None,
        "mid_block_only_cross_attention": None,
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "num_attention_heads": None,
        "num_class_embeds": None,
        "only_cross_attention": False,
        "projection_class_embeddings_input_dim": widths[1] + 6 * time_width,
        "resnet_out_scale_factor": 1.0,
        "resnet_skip_time_act": False,
        "resnet_time_scale_shift": "default",
        "time_cond_proj_dim": None,
        "time_embedding_act_fn": None,
        "time_embedding_dim": None,
        "time_embedding_type": "positional",
        "timestep_post_act": None,
        "transformer_layers_per_block": [1, 2, 10],
        "up_block_types": ["CrossAttnUpBlock2D"] * 2 + ["UpBlock2D"],
        "upcast_attention": None,
        "use_linear_projection": True,
    }
    parts = {
        **ONE_TEXT_ENCODER,
        "scheduler": "EulerDiscreteScheduler",
        "text_encoder_2": "CLIPTextModelWithProjection",
        "tokenizer_2": "CLIPTokenizer",
    }
    return {
        "model_index.json": index("StableDiffusionXLPipeline", parts, add_watermarker=None, force_zeros_for_empty_prompt=True),
        "unet/config.json": unet_config(channels, groups, sum(widths), 128, [5, 10, 20], **more),
        "vae/config.json": vae_config(
            vae_channels(full), 1024, _diffusers_version="0.20.0.dev0", force_upcast=True, scaling_factor=0.13025
        ),
        "text_encoder/config.json": Text(12, 12, widths[0], "quick_gelu", widths[0]).config(),
        "text_encoder_2/config.json": Text(
            32, 20, widths[1], "gelu", widths[1], "CLIPTextModelWithProjection"
        ).config(),
        "tokenizer/special_tokens_map.json": special_tokens("<|endoftext|>"),
        "tokenizer_2/special_tokens_map.json": special_tokens("!"),
    }


def vae_channels(full):
    """Channels of the autoencoder's levels: the same in every family."""
    return [128, 256, 512, 512] if full else [32, 64, 64, 64]


def configs(family, full=False):
    """Every configuration file of a model, path in the folder -> content."""
    files = {"sd14": sd14, "sd21": sd21, "sdxl": sdxl}[family](full)
    return copy.deepcopy({**files, "scheduler/scheduler_config.json": SCHEDULERS[family]})


def components(family):
    """The parts that have weights."""
    return ("unet", "vae", "text_encoder") + (("text_encoder_2",) if family == "sdxl" else ())


def skeleton(component, config):
    """The module on the meta device: names and shapes without memory."""
    with torch.device("meta"):
        if component == "unet":
            return UNet2DConditionModel.from_config(config)
        if component == "vae":
            return AutoencoderKL.from_config(config)
        classes = {"CLIPTextModel": CLIPTextModel, "CLIPTextModelWithProjection": CLIPTextModelWithProjection}
        return classes[config["architectures"][0]](CLIPTextConfig(**config))


def file_key(component, key):
    """A tensor's name in the file: the library has dropped `text_model.` from CLIPTextModel, the files have it."""
    wrapped = key.startswith(("text_model.", "text_projection."))
    return key if wrapped or not component.startswith("text_encoder") else f"text_model.{key}"


def shapes(component, config):
    """Name in the file -> shape of every tensor of a component, sorted by name."""
    state = skeleton(component, config).state_dict()
    return dict(sorted((file_key(component, key), tuple(tensor.shape)) for key, tensor in state.items()))


def compact(value):
    """JSON on one line, keys sorted."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
