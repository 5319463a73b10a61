"""Write the reference data of the autoencoder: the picture of one golden case encoded and decoded by diffusers."""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import common


@torch.no_grad()
def reference(vae, image):
    """Encode and decode `image` ([3,H,W] in -1..1) and return every tensor of the file, without the batch axis."""
    posterior = vae.encode(image.unsqueeze(0)).latent_dist  # its logvar is clamped to -30..20
    latents = posterior.mean * vae.config.scaling_factor
    decoded = vae.decode(latents / vae.config.scaling_factor).sample
    batch = {"mean": posterior.mean, "logvar": posterior.logvar, "latents": latents, "decoded": decoded}
    return {"image": image, **{name: tensor[0] for name, tensor in batch.items()}}


def main():
    """Read the options, compute, write, print a summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="models/emoji", help="diffusers folder (default: %(default)s)")
    parser.add_argument("--golden", type=Path, default="golden", help="folder of the golden data (default: %(default)s)")
    parser.add_argument("--case", default="guided_pndm", help="case whose picture is encoded (default: %(default)s)")
    args = parser.parse_args()

    torch.set_num_threads(1)  # the order of sums, and so the last bits, may depend on the number of threads
    plain, _ = common.load_pipelines(args.model)
    image = load_file(args.golden / f"{args.case}.safetensors")["image"] * 2 - 1
    tensors = {name: tensor.float().contiguous() for name, tensor in reference(plain.vae, image).items()}
    metadata = {
        "versions": json.dumps(common.versions()),
        "source": f"image of {args.case}.safetensors times 2 minus 1; diffusers AutoencoderKL of models/emoji, f32, CPU",
    }
    path = args.golden / "vae_encoder.safetensors"
    save_file(tensors, path, metadata)

    for name, tensor in tensors.items():
        print(f"{name:<8} {list(tensor.shape)!s:<14} {tensor.min():+.4f} .. {tensor.max():+.4f}")
    error = (tensors["decoded"] - image).abs()
    print(f"decoded - image: mean {error.mean():.4f}, max {error.max():.4f}")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
