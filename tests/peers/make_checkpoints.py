"""Write a test model in the topology of Stable Diffusion 1.4, 2.1 or XL, its weights by formula: a diffusers folder or one file.

Tensors are computed and written one by one, so the true size (--full) needs little memory.
"""

import argparse
import json
import math
import shutil
from pathlib import Path

import numpy as np
import torch

import families
import formula
import single_file

DTYPES = {"f32": (torch.float32, "F32"), "f16": (torch.float16, "F16"), "bf16": (torch.bfloat16, "BF16")}
SIZES = {"F32": 4, "F16": 2, "BF16": 2, "I32": 4, "I64": 8}

OLD_VAE_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
"""Names of the autoencoder's attention in the published SD 1.x and 2.x folders; diffusers renames them when it loads."""


def as_bytes(array, dtype):
    """The bytes of an f32 array, rounded to `dtype`."""
    tensor = torch.from_numpy(np.ascontiguousarray(array)).to(DTYPES[dtype][0])
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


def write_safetensors(path, entries):
    """Write a safetensors file; `entries` maps name -> (dtype name, shape, function that returns the bytes)."""
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, shape, _) in entries.items():
        end = offset + SIZES[dtype] * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format aligns the data to 8 bytes
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, (dtype, shape, content) in entries.items():
            data = content()
            assert len(data) == SIZES[dtype] * math.prod(shape), name
            file.write(data)


def shards(entries, limit):
    """Cut `entries` into runs of at most `limit` bytes."""
    runs, size = [{}], 0
    for name, entry in entries.items():
        own = SIZES[entry[0]] * math.prod(entry[1])
        if runs[-1] and size + own > limit:
            runs.append({})
            size = 0
        runs[-1][name] = entry
        size += own
    return runs


def write_weights(folder, stem, entries, limit):
    """One file, or with a limit several of them and their index, named as the libraries name them."""
    runs = shards(entries, limit) if limit else [entries]
    if len(runs) == 1:
        write_safetensors(folder / f"{stem}.safetensors", entries)
        return
    weight_map = {}
    for number, run in enumerate(runs, 1):
        name = f"{stem}-{number:05}-of-{len(runs):05}.safetensors"
        write_safetensors(folder / name, run)
        weight_map.update(dict.fromkeys(run, name))
    total = sum(SIZES[dtype] * math.prod(shape) for dtype, shape, _ in entries.values())
    text = json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2)
    (folder / f"{stem}.safetensors.index.json").write_text(text + "\n")


def old_vae_key(key):
    """The name that this autoencoder tensor had before diffusers 0.17."""
    path, kind = key.rsplit(".", 1)
    for new, old in OLD_VAE_ATTENTION.items():
        if path.endswith(f"attentions.0.{new}"):
            return f"{path.removesuffix(new)}{old}.{kind}"
    return key


def component_entries(component, config, dtype, old_vae):
    """What `write_weights` needs for one component of the folder."""
    entries = {}
    for key, shape in families.shapes(component, config).items():
        content = lambda key=key, shape=shape: as_bytes(formula.weights(component, key, shape), dtype)
        name = old_vae_key(key) if old_vae and component == "vae" else key
        entries[name] = (DTYPES[dtype][1], shape, content)
    return entries


def write_tokenizer(folder, source, special_tokens):
    """The vocabulary of `source` with the padding token of this model."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        shutil.copyfile(source / name, folder / name)
    (folder / "special_tokens_map.json").write_text(json.dumps(special_tokens, indent=2) + "\n")


def write_folder(out, family, full=False, dtype="f32", limit=None, old_vae=False, tokenizer=Path("models/emoji/tokenizer")):
    """The diffusers folder of a family."""
    configs = families.configs(family, full)
    for path, content in configs.items():
        file = out / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if path.startswith("tokenizer"):
            write_tokenizer(file.parent, tokenizer, content)
        else:
            file.write_text(json.dumps(content, indent=2) + "\n")
    for component in families.components(family):
        entries = component_entries(component, configs[f"{component}/config.json"], dtype, old_vae)
        stem = "model" if component.startswith("text_encoder") else "diffusion_pytorch_model"
        write_weights(out / component, stem, entries, limit)


def write_single_file(out, family, full=False, dtype="f16"):
    """The file in the original layout."""
    entries = {
        name: (DTYPES[dtype][1], shape, lambda make=make: as_bytes(make(), dtype))
        for name, (shape, make) in single_file.tensors(family, families.configs(family, full)).items()
    }
    for name, tensor in single_file.extras(family).items():
        kind = {torch.float32: "F32", torch.int32: "I32", torch.int64: "I64"}[tensor.dtype]
        entries[name] = (kind, tuple(tensor.shape), lambda tensor=tensor: tensor.contiguous().numpy().tobytes())
    out.parent.mkdir(parents=True, exist_ok=True)
    write_safetensors(out, dict(sorted(entries.items())))


def main():
    """Read the options and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("family", choices=families.NAMES)
    parser.add_argument("out", type=Path, help="folder to write, or the file with --single-file")
    parser.add_argument("--full", action="store_true", help="the true size instead of the small one; f16, in shards of 2 GB")
    parser.add_argument("--dtype", choices=DTYPES, help="default: f32; f16 with --full or --single-file")
    parser.add_argument("--sharded", action="store_true", help="several files for each component, with an index")
    parser.add_argument("--shard-mb", type=int, help="largest file in MB (default: 4; 2000 with --full)")
    parser.add_argument("--old-vae", action="store_true", help="name the autoencoder's attention as the published SD 1.x and 2.x do")
    parser.add_argument("--single-file", action="store_true", help="the original layout instead of a diffusers folder")
    parser.add_argument("--tokenizer", type=Path, default="models/emoji/tokenizer", help="CLIP's vocabulary (default: %(default)s)")
    args = parser.parse_args()

    torch.set_num_threads(1)
    dtype = args.dtype or ("f16" if args.full or args.single_file else "f32")
    if args.single_file:
        if args.sharded or args.old_vae:
            parser.error("--single-file takes neither --sharded nor --old-vae")
        write_single_file(args.out, args.family, args.full, dtype)
    else:
        megabytes = args.shard_mb or (2000 if args.full else 4)
        limit = megabytes * 1_000_000 if args.sharded or args.full or args.shard_mb else None
        write_folder(args.out, args.family, args.full, dtype, limit, args.old_vae, args.tokenizer)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
