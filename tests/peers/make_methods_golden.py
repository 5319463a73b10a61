"""Write runs of the bundled model with Composable Diffusion, StructureDiffusion and SynGen.

Composable Diffusion and StructureDiffusion follow their authors' formulas step by step on diffusers' UNet: a pass for
each phrase, and one attention for each noun phrase, averaged (not one attention with averaged values). SynGen's loss is
that of `syngen.py` in torch, its gradient torch's.
"""

import argparse
import json
from pathlib import Path

import diffusers
import torch
from safetensors.torch import save_file

import common
import guidance

PROMPT, SEED, STEPS, SCALE = "a cat and a red car", 3, 10, 7.5
PHRASES = ("a cat", "a red car")
SPANS = ((1, 3), (4, 7))
WEIGHTS = {"composable": (SCALE, SCALE), "composable_not": (SCALE, -2.5)}
SETS = [([6], [[5]])]
EOT = 7
KEPT = (0, 1, 2, 5, -1)
MOVED = 1 + 1e-6
BLOCKS = ("down_blocks.0", "up_blocks.1")


def encode(plain, text):
    """Text states [1, 77, d]."""
    ids = plain.tokenizer(text, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    return plain.text_encoder(ids)[0].detach()


class Structured:
    """Cross-attention with the keys of the first states and the mean over an attention for each of the states."""

    def __init__(self, states):
        self.states = states

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None):
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))
        key = attn.head_to_batch_dim(attn.to_k(self.states[0]))
        probabilities = attn.get_attention_scores(query, key, attention_mask)
        values = [attn.head_to_batch_dim(attn.to_v(states)) for states in self.states]
        out = torch.stack([torch.bmm(probabilities, value) for value in values]).mean(0)
        return attn.to_out[1](attn.to_out[0](attn.batch_to_head_dim(out)))


class Composable:
    """e_u + sum of weight times (e - e_u)."""

    def __init__(self, unet, uncond, phrases, weights):
        self.unet, self.uncond, self.phrases, self.weights = unet, uncond, phrases, weights

    @torch.no_grad()
    def guided(self, latents, t):
        uncond = self.unet(latents, t, encoder_hidden_states=self.uncond).sample
        total = uncond.clone()
        for states, weight in zip(self.phrases, self.weights):
            total += weight * (self.unet(latents, t, encoder_hidden_states=states).sample - uncond)
        return total


class Structure:
    """Plain guidance whose conditional half attends by noun phrases."""

    def __init__(self, unet, uncond, states):
        self.unet, self.uncond, self.states = unet, uncond, states

    @torch.no_grad()
    def guided(self, latents, t):
        uncond = self.unet(latents, t, encoder_hidden_states=self.uncond).sample
        original = self.unet.attn_processors
        looks = Structured(self.states)
        self.unet.set_attn_processor({name: looks if ".attn2." in name else old for name, old in original.items()})
        cond = self.unet(latents, t, encoder_hidden_states=self.states[0]).sample
        self.unet.set_attn_processor(original)
        return uncond + SCALE * (cond - uncond)


def structured_states(plain):
    """The prompt's states, and for each phrase a copy with the phrase's own rows."""
    whole = encode(plain, PROMPT)
    all_states = [whole]
    for phrase, (start, end) in zip(PHRASES, SPANS):
        own, copy = encode(plain, phrase), whole.clone()
        copy[:, start:end] = own[:, 1 : 1 + end - start]
        all_states.append(copy)
    return all_states


def distance(a, b):
    """The mean of both divergences, by torch's distributions."""
    p, q = (torch.distributions.Categorical(probs=x) for x in (a, b))
    kl = torch.distributions.kl_divergence
    return (kl(p, q) + kl(q, p)) / 2


def binding_loss(attention):
    """SynGen's loss of a map [height, width, tokens]."""
    maps = attention.reshape(-1, attention.shape[-1])
    total = 0.0
    for noun, modifiers in SETS:
        inside = set(noun).union(*modifiers)
        outside = [n for n in range(1, EOT) if n not in inside]
        far = lambda word: torch.stack([max(distance(maps[:, w], maps[:, o]) for w in word) for o in outside]).mean()
        for modifier in modifiers:
            near = max(distance(maps[:, a], maps[:, b]) for a in modifier for b in noun)
            total = total + near - (far(noun) + far(modifier)) / 2
    return total


class SynGen:
    """An update down the gradient of the binding loss."""

    def __init__(self, model):
        self.model, self.losses = model, []

    def update(self, latents, t):
        with guidance.recorded(self.model.unet, BLOCKS) as kept:
            leaf = latents.detach().clone().requires_grad_(True)
            self.model.predict(leaf, t, self.model.cond)
            loss = binding_loss(guidance.mean_map(kept, *common.MAP_SIZE))
            gradient = torch.autograd.grad(loss, leaf)[0]
        self.losses.append(loss.item())
        return latents - common.SCALE_FACTOR * gradient


def run(model, scheduler, noise, update=None):
    """Latents behind each step."""
    scheduler.set_timesteps(STEPS)
    latents, all_latents = noise * scheduler.init_noise_sigma, []
    for t in scheduler.timesteps:
        if update:
            latents = update(latents, t)
        latents = scheduler.step(model.guided(latents, t), t, latents).prev_sample
        all_latents.append(latents)
    return all_latents


def main():
    """Run each method, and again with noise that is moved by a millionth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="models/emoji", help="diffusers folder (default: %(default)s)")
    parser.add_argument("--golden", type=Path, default="tests/peers/golden", help="folder to write to (default: %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    plain, _ = common.load_pipelines(args.model)
    unet, uncond = plain.unet, encode(plain, "")
    phrases = [encode(plain, phrase) for phrase in PHRASES]
    models = {name: Composable(unet, uncond, phrases, weights) for name, weights in WEIGHTS.items()}
    models["structure"] = Structure(unet, uncond, structured_states(plain))
    plain_model = guidance.Model(unet, encode(plain, PROMPT), uncond, SCALE)
    tensors = {}
    for name in (*models, "syngen"):
        runs = []
        for factor in (1.0, MOVED):
            noise = torch.randn(1, 4, *common.MAP_SIZE, generator=torch.Generator("cpu").manual_seed(SEED)) * factor
            scheduler = diffusers.PNDMScheduler.from_config(plain.scheduler.config)
            binding = SynGen(plain_model) if name == "syngen" else None
            model = plain_model if binding else models[name]
            runs.append(run(model, scheduler, noise, binding and binding.update))
            if binding and factor == 1.0:
                tensors["syngen.losses"] = torch.tensor(binding.losses)
        tensors[f"{name}.latents"] = torch.cat([runs[0][step] for step in KEPT])
        tensors[f"{name}.moved"] = (runs[1][-1] - runs[0][-1]).abs().max().reshape(1)
        print(f"{name:<16} final latents up to {runs[0][-1].abs().max():.3f}, moved {tensors[f'{name}.moved'].item():.2e}")
    path = args.golden / "emoji_methods.safetensors"
    case = {"prompt": PROMPT, "seed": SEED, "steps": STEPS, "guidance": SCALE, "kept": KEPT, "versions": common.versions()}
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, path, {"case": json.dumps(case)})
    print(f"wrote {path}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
