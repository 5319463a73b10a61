"""Make pictures of known content in the bundled model's style, to measure how often a measure of pictures errs.

One, two or three sprites (Noto Color Emoji, SIL Open Font License 1.1; the bench, which the font lacks, is drawn) stand on a pale
ground, objects tinted in the eleven colours, and the picture goes through the model's VAE, slightly disturbed as samples are.
Each picture belongs to a prompt in the paper's wording; `fate` says how it fails the prompt, `things` what it shows.

    python eval_composites.py --count 2000 --seed 1 --out FOLDER     # needs Debian's fonts-noto-color-emoji
"""

import argparse
import json
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image, ImageDraw, ImageFilter, ImageFont

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
SIZE = 128
ANIMALS = {
    "cat": "🐱", "dog": "🐶", "bird": "🐦", "bear": "🐻", "lion": "🦁", "horse": "🐴",
    "elephant": "🐘", "monkey": "🐵", "frog": "🐸", "turtle": "🐢", "rabbit": "🐰", "mouse": "🐭",
}  # fmt: skip
OBJECTS = {
    "backpack": "🎒", "glasses": "👓", "crown": "👑", "suitcase": "🧳", "chair": "🪑", "balloon": "🎈",
    "bow": "🎀", "car": "🚗", "bowl": "🥣", "bench": None, "clock": "⏰", "apple": "🍎",
}  # fmt: skip
UNCOLOURED = ("bow", "crown", "glasses")
"""Objects that the paper's prompts name without a colour beside an animal."""

TINTS = {
    "red": (200, 24, 30), "orange": (236, 128, 18), "yellow": (252, 224, 40), "green": (30, 165, 74), "blue": (16, 98, 220),
    "purple": (112, 60, 190), "pink": (244, 132, 190), "brown": (136, 82, 42), "gray": (138, 132, 140), "black": (8, 8, 10),
    "white": (246, 246, 248),
}  # fmt: skip
"""Read off pictures that the bundled model makes of "a red car" and so on."""

FATES = {
    "animal-animal": {"right": 5, "missing": 3, "doubled": 2, "replaced": 2},
    "animal-object": {"right": 5, "wrong": 5, "missing": 2, "doubled": 1, "replaced": 1},
    "object-object": {"right": 5, "swapped": 5, "shared": 4, "mixed": 2, "wrong": 3, "missing": 2, "doubled": 1, "replaced": 1},
}
"""How often each, relative to the others. `wrong`: one object has a colour the prompt does not name; `shared`: one has the other's;
`mixed`: one passes from its own colour into the other's."""


def bench():
    """A park bench, 128x128 RGBA: two planks, a seat, two posts."""
    image = Image.new("RGBA", (136, 128))
    draw = ImageDraw.Draw(image)
    for top, bottom, left, right in ((18, 39, 12, 124), (42, 62, 12, 124), (72, 88, 4, 132)):
        draw.rounded_rectangle((left, top, right, bottom), 3, fill=(150, 100, 66, 255))
    for x in (20, 106):
        draw.rounded_rectangle((x, 16, x + 10, 120), 3, fill=(84, 54, 36, 255))
    return image


def sprites():
    """RGBA picture, cut to its content, for each subject."""
    font = ImageFont.truetype(FONT, 109)
    out = {}
    for name, letter in {**ANIMALS, **OBJECTS}.items():
        image = bench() if letter is None else Image.new("RGBA", (136, 128))
        if letter is not None:
            ImageDraw.Draw(image).text((0, 0), letter, font=font, embedded_color=True)
        out[name] = image.crop(image.getchannel("A").point(lambda a: 255 * (a > 40)).getbbox())
    return out


def tinted(sprite, colour, rng):
    """The sprite in one colour: dark where it was dark, washed out to white where it was light."""
    pixels = np.asarray(sprite).astype(np.float32)
    light = pixels[..., :3] @ np.float32([0.299, 0.587, 0.114]) / 255
    low, high = np.quantile(light[pixels[..., 3] > 128], (0.02, 0.98))
    light = np.clip((light - low) / (max(high, 0.8) - low), 0, 1) ** rng.uniform(0.8, 1.4)
    base = np.clip(np.float32(TINTS[colour]) + rng.normal(0, 10, 3), 0, 255)
    floor = {"black": 0.3, "white": 0.65}.get(colour, 0.4)
    shade = np.minimum(floor + (1 - floor) * light / 0.55, 1)[..., None] * base
    wash = np.clip((light - 0.55) / 0.45, 0, 1)[..., None] * (0.2 if colour == "black" else rng.uniform(0.25, 0.7))
    rgb = shade * (1 - wash) + 255 * wash
    return Image.fromarray(np.concatenate([rgb, pixels[..., 3:]], -1).astype(np.uint8))


def blended(first, second, rng):
    """Two tints of one sprite, one passing into the other across its middle."""
    width, height = first.size
    angle = rng.uniform(0, 2 * np.pi)
    across = np.cos(angle) * (np.arange(width) / width - 0.5)[None] + np.sin(angle) * (np.arange(height) / height - 0.5)[:, None]
    share = 1 / (1 + np.exp(-(across - np.median(across[np.asarray(first)[..., 3] > 128])) / rng.uniform(0.02, 0.1)))
    return Image.composite(second, first, Image.fromarray((255 * share).astype(np.uint8)))


def places(count, rng):
    """Centres and longer sides in pixels: side by side, one above the other, or askew; some touch or overlap."""
    if count == 1:
        return [(rng.uniform(46, 82, 2), rng.uniform(46, 82))]
    sides = rng.uniform(40, 64, count) if count == 2 else rng.uniform(34, 46, count)
    apart = rng.uniform(0.82, 1.3)
    angle = rng.choice([0, np.pi / 2, None], p=[0.6, 0.2, 0.2])
    angle = rng.uniform(0, np.pi) if angle is None else angle + rng.normal(0, 0.12)
    step = np.array([np.cos(angle), np.sin(angle)]) * rng.choice([-1, 1])
    at = np.cumsum([0, *((sides[1:] + sides[:-1]) / 2 * apart)])
    centres = 64 + rng.normal(0, 5, 2) + np.outer(at - at.mean(), step)
    return list(zip(np.clip(centres, 22, 106), sides))


def compose(things, pictures, rng):
    """RGB picture of the things, and their boxes with the share of each that is not hidden by later ones."""
    ground = 255 - rng.uniform(0, 14, 3) if rng.random() < 0.8 else np.full(3, rng.uniform(238, 255))
    canvas = Image.new("RGB", (SIZE, SIZE), tuple(int(v) for v in ground))
    alphas = []
    for thing, (centre, side) in zip(things, places(len(things), rng)):
        sprite = pictures[thing["subject"]]
        if thing["colour"]:
            sprite = tinted(sprite, thing["colour"], rng)
            if "mixed_with" in thing:
                sprite = blended(sprite, tinted(pictures[thing["subject"]], thing["mixed_with"], rng), rng)
        scale = side / max(sprite.size) * rng.uniform(0.92, 1.08, 2)
        sprite = sprite.resize([max(4, round(v * s)) for v, s in zip(sprite.size, scale)], Image.LANCZOS)
        corner = [round(c - v / 2) for c, v in zip(centre, sprite.size)]
        canvas.paste(sprite, corner, sprite)
        alpha = Image.new("L", (SIZE, SIZE))
        alpha.paste(sprite.getchannel("A"), corner)
        alphas.append(np.asarray(alpha) > 100)
        thing["whole"] = int((np.asarray(sprite.getchannel("A")) > 100).sum())
    for at, thing in enumerate(things):
        seen = alphas[at] & ~np.any(alphas[at + 1 :], 0) if at + 1 < len(things) else alphas[at]
        rows, columns = np.nonzero(seen)
        thing["box"] = [int(v) for v in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)] if len(rows) else [0] * 4
        thing["visible"] = round(float(seen.sum() / thing.pop("whole")), 3)
    return canvas.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.7)))


def other(words, *but, rng):
    """One of the words, none of those in `but`."""
    return str(rng.choice([word for word in words if word not in but]))


def scene(rng):
    """A prompt in the paper's wording, its subjects with colours, and the things that a picture of this fate shows."""
    kind = str(rng.choice(list(FATES), p=[0.15, 0.35, 0.5]))
    first = other(OBJECTS if kind == "object-object" else ANIMALS, rng=rng)
    second = other(ANIMALS if kind == "animal-animal" else OBJECTS, first, rng=rng)
    asked = [
        {"subject": name, "colour": other(TINTS, rng=rng) if name in OBJECTS and kind == "object-object" else None} for name in (first, second)
    ]
    joined = "and"
    if kind == "animal-object":
        if second in UNCOLOURED:
            joined = "with"
        else:
            asked[1]["colour"] = other(TINTS, rng=rng)
    fates = dict(FATES[kind])
    colours = [a["colour"] for a in asked]
    if colours[1] is None:
        fates.pop("wrong", None)
    if colours[0] == colours[1]:
        fates = {name: weight for name, weight in fates.items() if name not in ("swapped", "shared", "mixed")}
    weights = np.array(list(fates.values()), float)
    fate = str(rng.choice(list(fates), p=weights / weights.sum()))
    shown = [dict(a) for a in asked]
    coloured = [at for at in (0, 1) if colours[at]]
    lost = int(rng.integers(2))
    if fate == "wrong":
        shown[int(rng.choice(coloured))]["colour"] = other(TINTS, *colours, rng=rng)
    elif fate == "swapped":
        shown[0]["colour"], shown[1]["colour"] = colours[1], colours[0]
    elif fate == "shared":
        shown[lost]["colour"] = colours[1 - lost]
    elif fate == "mixed":
        shown[lost]["mixed_with"] = colours[1 - lost]
    elif fate == "missing":
        del shown[lost]
    elif fate == "doubled":
        shown[lost] = dict(shown[1 - lost])
    elif fate == "replaced":
        name = other({**ANIMALS, **OBJECTS}, first, second, rng=rng)
        shown[lost] = {"subject": name, "colour": other(TINTS, rng=rng) if name in OBJECTS and rng.random() < 0.8 else None}
    if len(shown) == 2 and rng.random() < 0.08:
        name = other({**ANIMALS, **OBJECTS}, first, second, rng=rng)
        shown.append({"subject": name, "colour": other(TINTS, rng=rng) if name in OBJECTS else None})
    rng.shuffle(shown)
    words = [f"a {a['colour']} {a['subject']}" if a["colour"] else f"a {a['subject']}" for a in asked]
    return {"prompt": f"{words[0]} {joined} {words[1]}", "kind": kind, "fate": fate, "subjects": asked, "things": shown}


def through_vae(vae, batch, generator):
    """The pictures encoded, their latents disturbed a little, decoded."""
    images = torch.stack([torch.from_numpy(np.array(p)).permute(2, 0, 1) for p in batch]).float() / 127.5 - 1
    with torch.inference_mode():
        latents = vae.encode(images).latent_dist.mean
        noise = torch.randn(latents.shape, generator=generator)
        strength = 0.3 * torch.rand((len(batch), 1, 1, 1), generator=generator)
        decoded = vae.decode(latents + strength * latents.std((1, 2, 3), keepdim=True) * noise).sample
    pixels = ((decoded + 1) * 127.5).clamp(0, 255).round().byte().permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(p) for p in pixels]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=Path(__file__).parents[2] / "models/emoji")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng, generator = np.random.default_rng(options.seed), torch.Generator().manual_seed(options.seed)
    vae, pictures = AutoencoderKL.from_pretrained(options.model / "vae", torch_dtype=torch.float32), sprites()
    options.out.mkdir(parents=True, exist_ok=True)
    scenes = []
    for start in range(0, options.count, 16):
        batch = []
        for at in range(start, min(start + 16, options.count)):
            scenes.append({"file": f"{at:04}.png", **scene(rng)})
            batch.append(compose(scenes[-1]["things"], pictures, rng))
        for entry, image in zip(scenes[start:], through_vae(vae, batch, generator)):
            image.save(options.out / entry["file"], optimize=True)
    (options.out / "scenes.json").write_text("[\n" + ",\n".join(json.dumps(s) for s in scenes) + "\n]\n")


if __name__ == "__main__":
    main()
