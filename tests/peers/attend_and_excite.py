"""Hold the program's Attend-and-Excite against diffusers' own: latents, refinements, pixels and the judge's verdicts on prompts of the paper.

    python tests/peers/attend_and_excite.py --program target/release/excite

Both start from the same seed on the bundled model. What an image came to is kept in a line of NDJSON, so that an interrupted run goes on.
Where the two differ by more than a fixed tolerance, diffusers runs again from noise times 1 + 1e-6 and the like: updates that overshoot,
a maximum that passes from one pixel to another or one refinement more let a difference in the last bit grow, and no program can be
closer to diffusers than diffusers is to itself. Exit status 1 if a tolerance or the goal is missed.
"""

import argparse
import functools
import json
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import common
import guidance
import numpy as np
import torch
from eval_models import clip_pixels
from PIL import Image
from safetensors.torch import load_file
from transformers import CLIPModel, CLIPTokenizer

GUIDANCE_SCALE = 7.5

SUBSETS = {"animals": 66, "animals_objects": 144, "objects": 66}
"""The paper's subsets in the order of the file, with their sizes."""

SHOWN = (0, 1, 2, 5)
"""Scheduler steps whose latents are reported."""

EARLY = (0, 1, 2)
"""Scheduler steps whose latents have a tolerance."""

EARLY_TOLERANCE = 1e-3
FINAL_TOLERANCE = 1e-2
"""As in golden/README.md; beyond it the refinements are looked at and diffusers is compared with itself."""

ALLOWANCE = 10
"""How many times its own movement the program may be away from diffusers: as in golden/README.md."""

MOVED = (1 + 1e-6, 1 - 1e-6, 1 + 2e-6)
"""Factors of the noise in the runs that show how sensitive an image is; the later ones only where the earlier do not explain the difference."""

GOAL = 0.98
"""Share of images on which the judge must say the same of every subject."""


@dataclass(frozen=True)
class Case:
    """One image to make twice: the prompt, its subset, the positions of its subjects and the seed."""

    prompt: str
    subset: str
    indices: tuple
    seed: int

    @property
    def name(self):
        """The stem of this image's files."""
        return f"{self.prompt.replace(' ', '-')}-{self.seed}"


def cases(path, per_subset, seeds):
    """`per_subset` prompts of each subset, spread evenly over it; the seeds take turns from prompt to prompt."""
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    if len(lines) != sum(SUBSETS.values()):
        raise ValueError(f"{path}: {len(lines)} prompts instead of {sum(SUBSETS.values())}")
    chosen, start = [], 0
    for subset, size in SUBSETS.items():
        for k in range(min(per_subset, size)):
            prompt, indices = lines[start + k * size // min(per_subset, size)]
            chosen.append(Case(prompt, subset, tuple(map(int, indices.split())), k % seeds))
        start += size
    return chosen


@dataclass
class Made:
    """An image with its way there: latents [steps,4,h,w] and refinement iterations after each scheduler step, and the picture."""

    latents: torch.Tensor
    refinements: list
    picture: Image.Image


def by_program(program, model, steps, case, folder):
    """Run the program; read its trace and its PNG."""
    trace = folder / f"{case.name}.safetensors"
    command = [
        program, "generate", case.prompt, "--model", model, "--seeds", str(case.seed), "--steps", str(steps),
        "--guidance-scale", str(GUIDANCE_SCALE), "--scheduler", "pndm", "--method", "attend_and_excite", "--noise", "torch_cpu",
        "--subjects", ",".join(f"#{index}" for index in case.indices), "--device", "cpu", "--precision", "f32", "--threads", "1",
        "--trace", trace, "--out", folder / "program", "--overwrite", "--json",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    if done.returncode:
        sys.exit(f"{case.prompt}, seed {case.seed}: the program ended with {done.returncode}\n{done.stderr}")
    path = json.loads(done.stdout.splitlines()[0])["path"]
    tensors = load_file(trace)
    trace.unlink()
    return Made(tensors["latents"], tensors["refinements"].tolist(), Image.open(path).convert("RGB"))


@contextmanager
def recorded_steps(scheduler, iterations):
    """Within this block each step's latents and the length of `iterations` by then are kept.

    The pipeline's callback would not do: with PNDM it leaves the first step out.
    """
    step, kept = scheduler.step, []

    @functools.wraps(step)  # the pipeline reads the signature
    def recorded(*args, **kwargs):
        output = step(*args, **kwargs)
        kept.append((output.prev_sample.detach().clone()[0], len(iterations)))
        return output

    scheduler.step = recorded
    try:
        yield kept
    finally:
        scheduler.step = step


def by_diffusers(guided, steps, case, factor=None):
    """Run diffusers' pipeline; with a factor, from this seed's noise times it."""
    start = {"generator": torch.Generator("cpu").manual_seed(case.seed)}
    if factor is not None:
        start = {"latents": common.initial_noise(guided, case.seed) * factor}
    with common.counted_refinements(guided) as iterations, recorded_steps(guided.scheduler, iterations) as kept:
        picture = guided(
            case.prompt,
            token_indices=list(case.indices),
            num_inference_steps=steps,
            guidance_scale=GUIDANCE_SCALE,
            thresholds=guidance.THRESHOLDS,
            max_iter_to_alter=guidance.MAX_ITER,
            attn_res=common.MAP_SIZE,
            **start,
        ).images[0]
    counts = [count for _, count in kept]
    return Made(torch.stack([latents for latents, _ in kept]), np.diff([0, *counts]).tolist(), picture)


class Judge:
    """The CLIP that says of a picture whether it shows a thing."""

    def __init__(self, folder):
        self.folder = folder
        self.model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = CLIPTokenizer.from_pretrained(folder)
        line = json.loads((folder / "judge.json").read_text())
        self.scale, self.bias = line["logit_scale"], line["logit_bias"]

    @torch.no_grad()
    def logits(self, picture, words):
        """A logit for each word: shown where it is above 0."""
        vision = self.model.get_image_features(pixel_values=clip_pixels(self.folder, [picture])).pooler_output
        phrases = [f"a {word}" for word in words]
        texts = [text for p in phrases for text in (p, f"a photo of {p}.", f"a picture of {p}.", f"{p}.")]
        tokens = self.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
        states = self.model.get_text_features(**tokens).pooler_output
        cosine = torch.nn.functional.cosine_similarity(states, vision)
        return (cosine.reshape(len(words), 4).mean(-1) * self.scale + self.bias).tolist()


def subject_words(tokenizer, case):
    """The words at the subjects' positions."""
    ids = tokenizer(case.prompt).input_ids
    return [tokenizer.decode([ids[index]]).strip() for index in case.indices]


def shown(logits):
    """The judge's verdict on each subject."""
    return [logit > 0 for logit in logits]


def distances(made, other):
    """Largest difference of the latents after some steps and after the last, and of the pixels (0 to 255)."""
    if made.latents.shape != other.latents.shape:
        raise ValueError(f"latents {list(made.latents.shape)} and {list(other.latents.shape)}")
    latents = (made.latents - other.latents).abs().amax((1, 2, 3))
    pixels = np.abs(np.asarray(made.picture, np.int16) - np.asarray(other.picture, np.int16))
    return {
        "latents": {str(step): latents[step].item() for step in SHOWN},
        "final": latents[-1].item(),
        "pixel_mean": pixels.mean().item(),
        "pixel_max": pixels.max().item(),
    }


def nonzero(counts):
    """Refinement iterations by the steps that have any."""
    return {str(step): count for step, count in enumerate(counts) if count}


def compare(program, model, guided, judge, steps, case, folder):
    """Make the image with both; return the line of this image."""
    words = subject_words(guided.tokenizer, case)
    ours, theirs = by_program(program, model, steps, case, folder), by_diffusers(guided, steps, case)
    path = folder / "diffusers" / f"{case.name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    theirs.picture.save(path)
    line = {
        "prompt": case.prompt, "subset": case.subset, "seed": case.seed, "subjects": words, **distances(ours, theirs),
        "refinements": [nonzero(ours.refinements), nonzero(theirs.refinements)],
        "logits": [judge.logits(ours.picture, words), judge.logits(theirs.picture, words)],
    }  # fmt: skip
    if not explained(line, []):
        apart = (ours.latents - theirs.latents).abs().amax((1, 2, 3)) > EARLY_TOLERANCE
        line["apart_from_step"] = apart.int().argmax().item() if apart.any() else None
        line["moved"] = []
        for factor in MOVED:
            moved = by_diffusers(guided, steps, case, factor)
            moved.picture.save(folder / "diffusers" / f"{case.name}-moved-{len(line['moved'])}.png")
            further = {"refinements": nonzero(moved.refinements), "logits": judge.logits(moved.picture, words)}
            line["moved"].append({"factor": factor, **distances(moved, theirs), **further})
            if explained(line, line["moved"]):
                break
    return line


def limits(moved):
    """How far apart the latents may be after the early steps and after the last, given how far diffusers moves from itself."""
    early = {str(step): max([EARLY_TOLERANCE, *(ALLOWANCE * run["latents"][str(step)] for run in moved)]) for step in EARLY}
    return early | {"final": max([FINAL_TOLERANCE, *(ALLOWANCE * run["final"] for run in moved)])}


def near(line, moved):
    """Whether the latents of this image are as near to each other as they must be."""
    found = line["latents"] | {"final": line["final"]}
    return all(found[name] <= limit for name, limit in limits(moved).items())


def explained(line, moved):
    """Whether the latents are near, and the program's refinements and verdicts are diffusers' own or those of a moved run."""
    ours, theirs = line["refinements"]
    verdict, *verdicts = map(shown, [*line["logits"], *(run["logits"] for run in moved)])
    # Where diffusers' own count changes, any other may come of it.
    refined = ours == theirs or any(run["refinements"] != theirs for run in moved)
    return near(line, moved) and refined and verdict in verdicts


def same_refinements(line):
    """Whether both refined at the same steps and as often."""
    ours, theirs = line["refinements"]
    return ours == theirs


def same_verdicts(line):
    """Whether the judge says the same of every subject in both pictures."""
    ours, theirs = line["logits"]
    return shown(ours) == shown(theirs)


def settings(args, version):
    """What a run must share with the lines it goes on from."""
    return {
        "model": str(args.model), "judge": str(args.judge), "program": version, "steps": args.steps, "guidance_scale": GUIDANCE_SCALE,
        "versions": common.versions(),
    }  # fmt: skip


def read_lines(path, header):
    """The images that are done, by prompt and seed; starts the file with the settings if there is none."""
    if not path.exists():
        path.write_text(json.dumps(header) + "\n", encoding="utf-8")
        return {}
    text = path.read_text(encoding="utf-8")
    if not text.endswith("\n"):  # the line that was being written when the run was ended
        text = text[: text.rfind("\n") + 1]
        path.write_text(text, encoding="utf-8")
    first, *rest = [json.loads(line) for line in text.splitlines()] or [None]
    if first != header:
        sys.exit(f"{path} is of a run with other settings ({first}): remove it or choose another --work")
    return {(line["prompt"], line["seed"]): line for line in rest}


def verdict_text(line, logits):
    """E.g. "cat+ frog-": shown and not shown."""
    return " ".join(word + ("+" if yes else "-") for word, yes in zip(line["subjects"], shown(logits)))


def row(line):
    """The line of the table for an image."""
    ours, theirs = line["logits"]
    verdict = verdict_text(line, theirs) if same_verdicts(line) else f"{verdict_text(line, ours)} | {verdict_text(line, theirs)}"
    numbers = "".join(f"{line['latents'][str(step)]:>9.1e}" for step in SHOWN) + f"{line['final']:>9.1e}"
    notes = [] if same_refinements(line) else [f"refinements {line['refinements'][0]} | {line['refinements'][1]}"]
    moved = line.get("moved", [])
    if moved:
        notes.append(f"apart from step {line['apart_from_step']}; diffusers from itself {max(run['final'] for run in moved):.1e}")
    if not explained(line, moved):
        notes.append("NOT EXPLAINED")
    refinements = sum(line["refinements"][1].values())
    return (
        f"{line['prompt']:<40}{line['seed']:>3}{numbers}{line['pixel_mean']:>8.3f}{line['pixel_max']:>5}{refinements:>5}"
        f"  {verdict}{'' if same_verdicts(line) else '  DIFFERENT'}  {'; '.join(notes)}"
    ).rstrip()


def summary(lines):
    """The figures over all images."""
    worst = {str(step): max(line["latents"][str(step)] for line in lines) for step in SHOWN}
    median = {str(step): float(np.median([line["latents"][str(step)] for line in lines])) for step in SHOWN}
    finals = [line["final"] for line in lines]
    agreeing = sum(map(same_verdicts, lines))
    ours, theirs = (sum(all(shown(line["logits"][which])) for line in lines) for which in (0, 1))
    return {
        "images": len(lines),
        "same_verdicts": agreeing,
        "share": agreeing / len(lines),
        "goal": GOAL,
        "all_subjects_shown": {"program": ours, "diffusers": theirs},
        "same_refinements": sum(map(same_refinements, lines)),
        "images_refined": sum(bool(line["refinements"][1]) for line in lines),
        "latents_median": median | {"final": float(np.median(finals))},
        "latents_worst": worst | {"final": max(finals)},
        "pixel_mean": {"median": float(np.median([line["pixel_mean"] for line in lines])), "worst": max(line["pixel_mean"] for line in lines)},
        "pixel_max": max(line["pixel_max"] for line in lines),
        "same_pixels": sum(line["pixel_max"] == 0 for line in lines),
        "within_fixed_tolerance": sum(near(line, []) for line in lines),
        "within_tolerance": sum(near(line, line.get("moved", [])) for line in lines),
        "not_explained": [[line["prompt"], line["seed"]] for line in lines if not explained(line, line.get("moved", []))],
    }


def rounded(value):
    """Three significant digits, for a file that people read."""
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.3g}") if isinstance(value, float) else value


def write_result(path, header, total, lines):
    """The settings, the figures and the images, one a line."""
    rows = ",\n".join("  " + json.dumps(rounded(line)) for line in lines)
    head = json.dumps({"settings": header, "summary": rounded(total)}, indent=1)[:-2]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{head},\n "images": [\n{rows}\n ]\n}}\n', encoding="utf-8")


def main():
    """Read the options, make what is missing, print the table, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default="target/release/excite", help="the program (default: %(default)s)")
    parser.add_argument("--model", default="models/emoji", help="diffusers folder (default: %(default)s)")
    parser.add_argument("--judge", type=Path, default=Path("models/emoji-clip"), help="the judge's folder (default: %(default)s)")
    parser.add_argument("--paper", type=Path, default=Path("crates/prompt/src/paper_prompts.tsv"), help="the prompts (default: %(default)s)")
    parser.add_argument("--prompts", type=common.positive, default=22, help="prompts of each subset (default: %(default)s)")
    parser.add_argument("--seeds", type=common.positive, default=3, help="seeds that take turns, from 0 (default: %(default)s)")
    parser.add_argument("--steps", type=common.positive, default=50, help="denoising steps (default: %(default)s)")
    parser.add_argument("--work", type=Path, default=Path("out/peers/attend_and_excite"), help="lines and pictures (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("tests/peers/results/attend_and_excite.json"), help="the result (default: %(default)s)")
    args = parser.parse_args()

    torch.set_num_threads(1)
    args.work.mkdir(parents=True, exist_ok=True)
    version = subprocess.run([args.program, "--version"], capture_output=True, text=True, encoding="utf-8", check=True).stdout.strip()
    header = settings(args, version)
    path = args.work / "images.ndjson"
    done, chosen = read_lines(path, header), cases(args.paper, args.prompts, args.seeds)
    _, guided = common.load_pipelines(args.model)
    judge = Judge(args.judge)

    titles = "".join(f"{f'step {step}':>9}" for step in SHOWN) + f"{'final':>9}"
    print(f"{'largest difference of latents':<43}{titles}{'pixels':>8}{'max':>5}{'ref.':>5}  judge", flush=True)
    lines = []
    for case in chosen:
        line = done.get((case.prompt, case.seed))
        if line is None:
            line = compare(args.program, args.model, guided, judge, args.steps, case, args.work)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        lines.append(line)
        print(row(line), flush=True)

    total = summary(lines)
    write_result(args.out, header, total, lines)
    print(json.dumps(rounded(total), indent=1))
    if total["share"] < GOAL or total["within_tolerance"] < total["images"]:
        sys.exit("the goal or a tolerance is missed")


if __name__ == "__main__":
    main()
