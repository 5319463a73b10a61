"""Write the small CLIP and BLIP models of the evaluation's tests, and what transformers computes with them and with the judge."""

import argparse
import json
from importlib.metadata import version
from pathlib import Path

import common
import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

PROCESSORS = {"clip": CLIPImageProcessorPil, "blip": BlipImageProcessorPil}

MERGES = 60
"""How many of CLIP's merges the small tokenizer keeps."""

SIZES = [(40, 30), (30, 41), (32, 32), (9, 5), (97, 64), (3, 70)]
"""Width and height of the pictures."""

TEXTS = ["a cat", "a photo of a red car.", "", "the sheep and the lion in the rain", "Ünïcode  \n ok", "in " * 90, "on <|endoftext|> on"]

PHRASES = ["a lion", "an elephant", "a cat", "a frog", "a blue suitcase", "a crown"]

GOLDEN = ["guided_pndm", "guided_pndm_objects", "plain_ddim"]
"""Golden runs whose pictures the judge sees."""

PROCESSES = [
    ("clip", {"size": 24, "crop_size": 24}, 0),
    ("clip", {"size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}, "resample": 2}, 1),
    ("clip", {"size": {"shortest_edge": 7}, "crop_size": 6}, 4),
    ("clip", {"size": {"shortest_edge": 40}, "crop_size": {"height": 33, "width": 41}}, 3),
    ("clip", {"do_resize": False, "crop_size": {"height": 11, "width": 4}}, 3),
    ("clip", {"do_resize": False, "crop_size": {"height": 4, "width": 8}}, 3),
    ("clip", {"size": {"height": 20, "width": 50}, "do_center_crop": False, "do_normalize": False}, 4),
    ("clip", {"do_resize": False, "do_center_crop": False, "do_rescale": False}, 3),
    ("clip", {"do_resize": False, "do_center_crop": False, "rescale_factor": 0.5, "image_mean": [1, 2, 3], "image_std": [0.3, 7, 11]}, 3),
    ("blip", {"size": 24}, 5),
    ("blip", {"size": {"height": 24, "width": 30}, "resample": 2}, 4),
    ("blip", {"size": {"height": 64, "width": 3}}, 5),
]
"""Class, preprocessor_config.json and number of the picture."""

CLIPS = {
    "clip": {"activation": "quick_gelu", "eps": 1e-5, "eos": None, "half": False, "size": 32, "seed": 1},
    "clip-gelu": {"activation": "gelu", "eps": 1e-2, "eos": 2, "half": True, "size": {"height": 24, "width": 24}, "seed": 2},
}
"""The small CLIPs. An end of text of 2 is what old configurations hold."""

BLIP_WORDS = [
    *"a picture of the and with on in two cat dog bird bear lion horse elephant monkey frog turtle rabbit mouse".split(),
    *"red blue green gray backpack glasses crown suitcase chair balloon bow car bowl bench clock apple ##s ##ing , . '".split(),
]
"""The words of the small BLIPs."""

BLIPS = {
    "blip": {"seed": 16, "half": False, "end": 3.0, "activation": "gelu"},
    "blip-quick": {"seed": 17, "half": True, "end": 3.0, "activation": "quick_gelu"},
}
"""The small BLIPs, and what is added to the bias of the token that ends a caption."""


def pictures():
    """Smooth shapes with some noise, so that resizing matters: [H,W,3], 8 bits."""
    random = np.random.default_rng(7)
    for width, height in SIZES:
        y, x = np.mgrid[0:height, 0:width].astype(float)
        waves = [np.sin(x * random.uniform(0.05, 0.9) + y * random.uniform(0.05, 0.9) + random.uniform(0, 6)) for _ in range(3)]
        noise = random.normal(0, 25, (height, width, 3))
        yield np.clip(np.stack(waves, -1) * 120 + 128 + noise, 0, 255).astype(np.uint8)


@torch.no_grad()
def fill(model, seed):
    """Weights with which every part of a model matters; transformers' own start is nearly linear."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if "norm" in name.lower():
            weight.copy_(noise * 0.1 + (1 if name.endswith("weight") else 0))
        elif "embedding" in name and "patch" not in name:
            weight.copy_(noise * 0.6)
        elif weight.dim() > 1:
            weight.copy_(noise * 1.4 / weight[0].numel() ** 0.5)
        elif weight.dim() == 1:
            weight.copy_(noise * 0.2)


def write_json(path, value):
    """Indented, with a line feed at the end."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def small_tokenizer(folder, source):
    """CLIP's tokenizer with its single bytes and its first merges."""
    vocab = json.loads((source / "vocab.json").read_text(encoding="utf-8"))
    merges = (source / "merges.txt").read_text(encoding="utf-8").split("\n")[: MERGES + 1]
    kept = dict(sorted(vocab.items(), key=lambda item: item[1])[: 512 + MERGES])
    for token in ("<|startoftext|>", "<|endoftext|>"):
        kept[token] = len(kept)
    (folder / "vocab.json").write_text(json.dumps(kept, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(merges) + "\n", encoding="utf-8")
    return kept


def save(model, folder, half):
    """Write configuration and weights; return the model as it is read again, in f32."""
    (model.half() if half else model).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    return type(model).from_pretrained(folder, dtype=torch.float32).eval()


def make_clip(folder, source, options):
    """Write a small CLIP with its tokenizer and its preprocessing."""
    vocab = small_tokenizer(folder, source)
    end = vocab["<|endoftext|>"]
    side = options["size"] if isinstance(options["size"], int) else options["size"]["height"]
    shared = {"num_hidden_layers": 2, "hidden_act": options["activation"], "layer_norm_eps": options["eps"]}
    config = CLIPConfig(
        text_config={
            "vocab_size": len(vocab), "hidden_size": 24, "intermediate_size": 40, "num_attention_heads": 3,
            "bos_token_id": end - 1, "eos_token_id": options["eos"] or end, "pad_token_id": end,
            "max_position_embeddings": 77 if options["eos"] is None else 20, **shared,
        },
        vision_config={"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "image_size": side, "patch_size": 8, **shared},
        projection_dim=20,
    )
    torch.manual_seed(0)
    model = CLIPModel(config)
    fill(model, options["seed"])
    model.logit_scale.data.fill_(2.5)
    save(model, folder, options["half"])
    crop = {"crop_size": side} if isinstance(options["size"], int) else {"do_center_crop": False, "resample": 2}
    write_json(folder / "preprocessor_config.json", {"size": options["size"], **crop})


def clip_pixels(folder, images):
    """The pixels that a CLIP's vision tower takes."""
    config = json.loads((folder / "preprocessor_config.json").read_text())
    return CLIPImageProcessorPil(**config)(images=images, return_tensors="pt")["pixel_values"]


@torch.no_grad()
def clip_reference(folder, images, texts):
    """Unit features of pictures and texts, and the factor of the logits."""
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    length = model.config.text_config.max_position_embeddings
    tokens = tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    features = {
        "images": model.get_image_features(pixel_values=clip_pixels(folder, images)).pooler_output,
        "texts": model.get_text_features(**tokens).pooler_output,
    }
    unit = {name: feature / feature.norm(dim=-1, keepdim=True) for name, feature in features.items()}
    return unit | {"scale": model.logit_scale.exp().reshape(1)}


def make_blip(folder, options):
    """Write a small BLIP with its words and its preprocessing; some weights are made so that captions differ by picture."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *BLIP_WORDS]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    config = BlipConfig(
        text_config={
            "vocab_size": len(words) + 2, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3,
            "max_position_embeddings": 32, "bos_token_id": len(words), "sep_token_id": 3, "pad_token_id": 0, "layer_norm_eps": 1e-12,
        },
        vision_config={
            "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 24, "patch_size": 8,
            "layer_norm_eps": 1e-3, "hidden_act": options["activation"],
        },
    )
    torch.manual_seed(0)
    model = BlipForConditionalGeneration(config)
    fill(model, options["seed"])
    # Otherwise a word, whose embedding is also the head's, calls for itself.
    embeddings = model.text_decoder.bert.embeddings
    embeddings.position_embeddings.weight.data *= 4
    model.text_decoder.cls.predictions.transform.dense.weight.data *= 2
    for layer in model.text_decoder.bert.encoder.layer:
        layer.crossattention.output.dense.weight.data *= 1.5
    model.text_decoder.cls.predictions.bias.data[3] += options["end"]
    save(model, folder, options["half"])
    write_json(folder / "preprocessor_config.json", {"size": {"height": 24, "width": 24}, "image_processor_type": "BlipImageProcessor"})


@torch.no_grad()
def blip_reference(folder, images):
    """Token ids and text of the caption of each picture, made as LAVIS makes them."""
    model = BlipForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = BertTokenizer.from_pretrained(folder)
    processor = BlipImageProcessorPil(**json.loads((folder / "preprocessor_config.json").read_text()))
    prompt = "a picture of "
    captions = []
    for image in images:
        pixels = processor(images=[image], return_tensors="pt")["pixel_values"]
        tokens = tokenizer(prompt, return_tensors="pt").input_ids
        found = model.generate(
            pixel_values=pixels, input_ids=tokens, num_beams=3, do_sample=False, min_length=10, max_length=30, repetition_penalty=1.0
        )[0].tolist()
        text = tokenizer.decode(found, skip_special_tokens=True)
        captions.append({"tokens": found, "text": text[len(prompt) :].strip()})
    return captions


def judge_reference(folder, golden):
    """The judge's embeddings and logits for pictures of golden runs."""
    images = [load_file(golden / f"{name}.safetensors")["image"] for name in GOLDEN]
    images = [Image.fromarray(np.rint(image.permute(1, 2, 0).numpy() * 255).astype(np.uint8)) for image in images]
    texts = [text for p in PHRASES for text in (p, f"a photo of {p}.", f"a picture of {p}.", f"{p}.")]
    reference = clip_reference(folder, images, texts)
    line = json.loads((folder / "judge.json").read_text())
    similarity = (reference["images"] @ reference["texts"].T).reshape(len(images), len(PHRASES), 4).mean(-1)
    return reference | {"logits": similarity * line["logit_scale"] + line["logit_bias"]}


def main():
    """Read the options, make the models, compute, write, print a summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--judge", type=Path, default=Path("models/emoji-clip"), help="the judge's folder (default: %(default)s)")
    parser.add_argument("--golden", type=Path, default=Path("golden"), help="folder of the golden data (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("crates/eval/tests/data"), help="where to write (default: %(default)s)")
    args = parser.parse_args()

    common.quiet()
    torch.set_num_threads(1)  # the order of sums, and so the last bits, may depend on the number of threads
    arrays = list(pictures())
    images = [Image.fromarray(array) for array in arrays]
    tensors = {f"picture.{i}": torch.from_numpy(array) for i, array in enumerate(arrays)}
    words = {"texts": TEXTS, "phrases": PHRASES, "golden": GOLDEN, "processes": [], "captions": {}}
    for i, (kind, config, picture) in enumerate(PROCESSES):
        words["processes"].append({"class": kind, "config": config, "picture": picture})
        tensors[f"process.{i}"] = PROCESSORS[kind](**config)(images=[images[picture]], return_tensors="pt")["pixel_values"][0].float()
    for name, options in CLIPS.items():
        folder = args.out / name
        folder.mkdir(parents=True, exist_ok=True)
        make_clip(folder, args.judge, options)
        tensors |= {f"{name}.{key}": value for key, value in clip_reference(folder, images, TEXTS).items()}
    tensors |= {f"judge.{key}": value for key, value in judge_reference(args.judge, args.golden).items()}

    for name, options in BLIPS.items():
        folder = args.out / name
        folder.mkdir(parents=True, exist_ok=True)
        make_blip(folder, options)
        words["captions"][name] = blip_reference(folder, images)

    versions = common.versions() | {"pillow": version("pillow")}
    save_file({name: t.contiguous() for name, t in tensors.items()}, args.out / "expected.safetensors", {"versions": json.dumps(versions)})
    write_json(args.out / "expected.json", words)
    for name, tensor in tensors.items():
        print(f"{name:<20} {list(tensor.shape)!s:<16} {tensor.min():+.4f} .. {tensor.max():+.4f}")
    for name, captions in words["captions"].items():
        for caption in captions:
            print(f"{name:<12} {len(caption['tokens'])} tokens: {caption['text']}")


if __name__ == "__main__":
    main()
