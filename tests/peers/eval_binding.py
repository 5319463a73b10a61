"""Fit the two linear readings of `excite_eval::binding` on pictures of known content.

    python eval_composites.py --count 1200 --seed 1 --out FOLDER
    python eval_binding.py --composites FOLDER        # writes crates/eval/src/binding/heads.json

The regions, crops and cuts are those of `crates/eval/src/binding`, where the constants are explained. The error is measured on other
pictures (`--seed 2`), never on these.
"""

import argparse
import json
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import binary_dilation, label, uniform_filter
from torch.nn import functional
from transformers import CLIPModel

from eval_composites import ANIMALS, OBJECTS, TINTS

PROJECT = Path(__file__).parents[2]
SUBJECTS, COLOURS = [*ANIMALS, *OBJECTS], list(TINTS)
NONE = len(SUBJECTS)
SHIFTS = ((0, 0), (5, 4), (-4, 6), (6, -5))
DIRECTIONS = ((1, 0), (0, 1), (0.7071, 0.7071), (0.7071, -0.7071))


def lab(rgb):
    """CIELAB (D65) from 8-bit sRGB."""
    c = rgb.astype(np.float32) / 255
    c = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    matrix = np.float32([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])
    t = c @ matrix.T / np.float32([0.95047, 1, 1.08883])
    f = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def grown(mask, reach):
    """With all pixels at most `reach` columns and rows away."""
    return binary_dilation(mask, np.ones((2 * reach + 1,) * 2))


def regions(image):
    """Masks of the things on the ground, and the ground's colour."""
    edge = np.ones(image.shape[:2], bool)
    edge[2:-2, 2:-2] = False
    ground = np.median(image[edge], 0)
    distance = np.linalg.norm(lab(image) - lab(ground), axis=-1)
    labels, count = label(uniform_filter(distance, 3, mode="nearest") > 6, np.ones((3, 3)))
    parts = sorted((p for p in (labels == i + 1 for i in range(count)) if p.sum() >= 40), key=lambda p: -p.sum())
    things, loose = [p for p in parts if p.sum() >= 220], []
    for part in (p for p in parts if p.sum() < 220):
        near = grown(part, 7)
        shared = [int((near & thing).sum()) for thing in things]
        if any(shared):
            things[int(np.argmax(shared))] |= part
        else:
            loose.append(part)
    while loose:
        thing = loose.pop(0)
        while near := [i for i, p in enumerate(loose) if (grown(thing, 7) & p).any()]:
            thing = thing | loose.pop(near[0])
        if thing.sum() >= 80:
            things.append(thing)
    return things, ground


def box(mask):
    """Left, top, right, bottom."""
    rows, columns = np.nonzero(mask)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def crop(image, mask, ground, shift):
    """The region alone on its ground, 70 pixels long, beside the middle of 128 by 128."""
    left, top, right, bottom = box(mask)
    alone = np.where(grown(mask, 2)[..., None], image, ground).astype(np.uint8)[top:bottom, left:right]
    scale = min(1.8, 70 / max(right - left, bottom - top))
    size = [max(1, round(v * scale)) for v in (right - left, bottom - top)]
    out = Image.new("RGB", (128, 128), tuple(int(v) for v in ground))
    out.paste(Image.fromarray(alone).resize(size, Image.BILINEAR), [(128 - v) // 2 + s for v, s in zip(size, shift)])
    return np.array(out)


def cuts(mask):
    """Halves of a region, cut at its waists in four directions."""
    rows, columns = np.nonzero(mask)
    out = []
    for x, y in DIRECTIONS:
        along = np.round(columns * x + rows * y).astype(int)
        along -= along.min()
        lines = np.bincount(along)
        before = (np.cumsum(lines) - lines) / len(along)
        chosen = []
        for line in sorted((i for i in range(len(lines)) if 0.18 <= before[i] <= 0.82), key=lambda i: (lines[i], i)):
            if len(chosen) < 6 and all(abs(line - other) >= 5 for other in chosen):
                chosen.append(line)
        for line in chosen:
            half = np.zeros_like(mask)
            half[rows[along < line], columns[along < line]] = True
            out.append((half, mask & ~half))
    return out


def overlap(a, b):
    """Intersection over union of two boxes."""
    both = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both + 1e-9)


def shown(mask, things):
    """Class of a region and the thing it shows; (None, None) where it is neither one thing nor clearly none."""
    bounds = box(mask)
    seen = [t for t in things if t["visible"] > 0.3]
    if not seen:
        return NONE, None
    best = max(seen, key=lambda t: overlap(bounds, t["box"]))
    share = overlap(bounds, best["box"])
    if share < 0.55:
        return NONE, None
    if share <= 0.72 or best["visible"] <= 0.6:
        return None, None
    for thing in seen:
        left, top, right, bottom = thing["box"]
        x, y = (left + right) // 2, (top + bottom) // 2
        middle = mask[max(0, y - 3) : y + 4, max(0, x - 3) : x + 4].any()
        inside = bounds[0] < x < bounds[2] and bounds[1] < y < bounds[3] and middle
        if thing is not best and (overlap(bounds, thing["box"]) > 0.3 or inside):
            return None, None
    return SUBJECTS.index(best["subject"]), best


def samples(folder, rng):
    """Image, mask, ground, class and thing of whole regions, of cuts between two things, and of cuts through one."""
    for scene in json.loads((folder / "scenes.json").read_text()):
        image = np.array(Image.open(folder / scene["file"]))
        found, ground = regions(image)
        for region in found:
            kind, thing = shown(region, scene["things"])
            if kind is not None:
                yield image, region, ground, kind, thing
            several = sum(overlap(box(region), t["box"]) > 0.05 for t in scene["things"]) > 1
            pairs = cuts(region)
            for at in rng.permutation(len(pairs))[: 12 if several else 2]:
                for half in pairs[at]:
                    kind, thing = shown(half, scene["things"])
                    kept = kind == NONE and rng.random() <= (0.25 if several else 0.6)
                    if kept or (several and kind is not None and kind != NONE):
                        yield image, half, ground, kind, thing


def features(folder, items):
    """The judge's unit feature of each region: the mean over the shifts."""
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    mean, std = (torch.tensor(settings[key]).view(3, 1, 1) for key in ("image_mean", "image_std"))
    out = []
    for image, mask, ground, *_ in items:
        crops = np.stack([crop(image, mask, ground, shift) for shift in SHIFTS])
        pixels = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode():
            feature = model.get_image_features(pixel_values=(pixels - mean) / std)
        feature = functional.normalize(getattr(feature, "pooler_output", feature), dim=-1).mean(0)
        out.append(functional.normalize(feature, dim=-1))
    return torch.stack(out).numpy()


def percentiles(pixels):
    """What the colour's reading sees of some pixels in CIELAB."""
    return np.quantile(pixels, [0.2, 0.5, 0.8], axis=0).ravel() / 30


def colour_samples(items):
    """Percentiles and colour of each tinted thing of one colour, whole and at both ends in four directions."""
    for image, mask, _, _, thing in items:
        if not thing or not thing["colour"] or "mixed_with" in thing:
            continue
        pixels, (rows, columns) = lab(image)[mask], np.nonzero(mask)
        colour = COLOURS.index(thing["colour"])
        yield percentiles(pixels), colour
        for x, y in DIRECTIONS:
            along = columns * x + rows * y
            low, high = np.quantile(along, [0.35, 0.65])
            for end in (along <= low, along >= high):
                yield percentiles(pixels[end]), colour


def fitted(inputs, classes, names, decay, scale, digits):
    """Multinomial logistic regression as JSON: a row of weights for each class."""
    inputs, classes = torch.tensor(inputs, dtype=torch.float32), torch.tensor(classes)
    weights, bias = (torch.zeros(shape, requires_grad=True) for shape in ((inputs.shape[1], len(names)), (len(names),)))
    optimizer = torch.optim.LBFGS([weights, bias], max_iter=400, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = functional.cross_entropy(inputs @ weights * scale + bias, classes) + decay * (weights**2).mean() * len(names)
        value.backward()
        return value

    optimizer.step(loss)
    rows = ",\n".join(json.dumps([round(float(v) * scale, digits) for v in row], separators=(",", ":")) for row in weights.detach().T)
    numbers = json.dumps([round(float(v), digits) for v in bias.detach()], separators=(",", ":"))
    return f'{{"names":{json.dumps(names, separators=(",", ":"))},\n"weights":[\n{rows}],\n"bias":{numbers}}}'


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--composites", type=Path, required=True)
    parser.add_argument("--judge", type=Path, default=PROJECT / "models/emoji-clip")
    parser.add_argument("--out", type=Path, default=PROJECT / "crates/eval/src/binding/heads.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    items = list(samples(options.composites, np.random.default_rng(0)))
    kinds = np.array([item[3] for item in items])
    subject = fitted(features(options.judge, items), kinds, [*SUBJECTS, "none"], 2e-3, 20.0, 2)
    inputs, colours = zip(*colour_samples(items))
    colour = fitted(np.array(inputs), np.array(colours), COLOURS, 1e-3, 1.0, 3)
    options.out.write_text(f'{{"subject":{subject},\n"colour":{colour}}}\n')


if __name__ == "__main__":
    main()
