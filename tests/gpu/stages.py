"""The stages of tests/gpu/run: each within its time, none in the way of the next, all of them in one table and one file."""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACK = ROOT / "target/cuda/pack"
BATCHES = (1, 2, 4, 8)
MARGIN = 10
"""Seconds that are kept for the report."""

NO_PACK = (
    "there is neither target/cuda/pack nor a Rust toolchain: make the pack with `cargo xtask cuda-check --pack` on a "
    "machine that has one, and carry the folder here"
)
NO_NVCC = (
    "there is no target/cuda/pack, and no nvcc to build one with: install CUDA's toolkit or carry the pack here "
    "(`cargo xtask cuda-check --pack`)"
)
NO_DIFFUSERS = (
    "this Python lacks {}: install torch with CUDA, diffusers, transformers and safetensors, or put them on PYTHONPATH"
)


class Skipped(Exception):
    """A stage that cannot run here; says why."""


class Failed(Exception):
    """A stage that ran and did not pass; says how, with what it measured so far."""

    def __init__(self, message, data=None):
        super().__init__(message)
        self.data = data


class Memory:
    """The GPU's memory in use, looked at ten times a second."""

    def __init__(self):
        query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-i", "0", "-lms", "100"]
        self.process = subprocess.Popen(query, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.now = self.highest = None
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self):
        for line in self.process.stdout:
            if line.strip().isdigit():
                self.now = int(line) * 2**20
                self.highest = max(self.highest or 0, self.now)

    def restart(self):
        """The peak until now, in bytes; from here on a new one counts."""
        highest, self.highest = self.highest, self.now
        return highest

    def close(self):
        self.process.kill()


def run(command, seconds, log, on_line=lambda line: None, env=None):
    """Run a program within its time; what it prints goes to `log`, its standard output also to `on_line`."""
    with open(log, "w") as file:
        file.write(f"$ {' '.join(map(str, command))}\n")
        file.flush()
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **(env or {})}, stdout=subprocess.PIPE, stderr=file, text=True, start_new_session=True
        )
        late = threading.Event()

        def stop():
            late.set()
            os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(max(seconds, 1), stop)
        timer.start()
        try:
            for line in process.stdout:
                file.write(line)
                on_line(line)
            status = process.wait()
        finally:
            timer.cancel()
    if late.is_set():
        raise Failed(f"it was not done in {seconds:.0f} s; see {log}")
    if status != 0:
        last = [line for line in Path(log).read_text().splitlines() if line.strip()][-3:]
        raise Failed(f"exit status {status}; see {log}: {' | '.join(last)}")


class Stages:
    """What is known so far; each method is a stage."""

    def __init__(self, out, seconds):
        self.out, self.end = out, time.monotonic() + seconds - MARGIN
        self.results, self.pack, self.env, self.model = [], None, {}, None

    def stage(self, name, budget, act):
        """Run one stage and keep what came of it."""
        left = self.end - time.monotonic()
        print(f"== {name} ==", flush=True)
        began = time.monotonic()
        result = {"stage": name, "status": "passed"}
        try:
            if left < 5:
                raise Skipped("no time is left")
            result["data"] = act(min(budget, left))
        except Skipped as why:
            result.update(status="skipped", why=str(why))
        except Failed as how:
            result.update(status="failed", why=str(how), data=how.data)
        except Exception as error:  # the next stages can still tell something
            result.update(status="failed", why=f"{type(error).__name__}: {error}")
        result["seconds"] = round(time.monotonic() - began, 1)
        self.results.append(result)
        print(f"   {result['status']} in {result['seconds']} s  {result.get('why', '')}", flush=True)

    def log(self, name):
        return self.out / f"{name}.log"

    def build(self, seconds):
        """The pack as it was carried here, or a new one."""
        if not (PACK / "excite").is_file():
            cargo = shutil.which("cargo")
            if not cargo:
                raise Skipped(NO_PACK)
            nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
            if not Path(nvcc).is_file():
                raise Skipped(NO_NVCC)
            home = {"CUDA_HOME": str(Path(nvcc).resolve().parents[1])}
            run([cargo, "xtask", "cuda-check", "--pack"], seconds, self.log("build"), env=home)
        self.env = {"LD_LIBRARY_PATH": libraries()}
        missing = unresolved(PACK / "excite", self.env)
        if missing:
            raise Failed(
                f"libraries are missing: {', '.join(missing)}; the pack was linked against CUDA 13: install its toolkit, "
                "or a torch for CUDA 13, whose packages hold them"
            )
        self.pack = PACK
        return {"commit": read(PACK / "commit"), "megabytes": round((PACK / "excite").stat().st_size / 1e6, 1)}

    def built(self):
        if not self.pack:
            raise Skipped("there is no build")
        return self.pack

    def tests(self, seconds):
        """The tests of crates/diffusion, those of the GPU among them."""
        pack, end = self.built(), time.monotonic() + seconds
        stand_in(read(pack / "built-in"))
        counts = {}
        for name in ("diffusion-unit-tests", "diffusion-tests"):
            said = []
            run([pack / name], end - time.monotonic(), self.log(name), said.append, self.env)
            counts[name] = next((line.strip() for line in said if line.startswith("test result:")), None)
        return counts

    def parity(self, precision, seconds):
        """The runs of diffusers in golden/, made again on the GPU."""
        cases = []
        keep = lambda line: cases.append(json.loads(line)) if line.startswith("{") else None
        command = [self.built() / "excite", "parity", "--device", "cuda", "--precision", precision, "--json"]
        try:
            run(command, seconds, self.log(f"parity-{precision}"), keep, self.env)
        except Failed as how:
            raise Failed(str(how), cases) from how
        return cases

    def write_model(self, seconds):
        """A model of the size of SD 1.4."""
        folder = self.out / "sd14"
        if not (folder / "text_encoder/model.safetensors").is_file():
            run([self.built() / "random-model", folder], seconds, self.log("random-model"), env=self.env)
        self.model = folder
        return {"folder": str(folder)}

    def images(self, name, command, seconds):
        """What a program measures, with the memory that it took."""
        if not self.model:
            raise Skipped("there is no model of that size")
        lines, memory = [], Memory()
        # What others have on the GPU is not ours.
        time.sleep(1)
        before = memory.now or 0
        memory.restart()

        def keep(line):
            if line.startswith("{"):
                measured = json.loads(line)
                peak = memory.restart()
                measured["peak_bytes"] = None if peak is None else max(peak - before, 0)
                lines.append(measured)
                print(f"   {line.strip()}", flush=True)

        try:
            run(command, seconds, self.log(name), keep, self.env if name == "excite" else None)
        except Failed as how:
            raise Failed(str(how), lines) from how
        finally:
            memory.close()
        return lines

    def excite(self, seconds):
        """Ours, in f16."""
        batches = ",".join(map(str, BATCHES))
        program = self.built() / "image-seconds"
        return self.images(
            "excite", [program, "--model", self.model or "", "--device", "cuda", "--precision", "f16", "--batches", batches], seconds
        )

    def torch(self, seconds):
        """diffusers, in f16."""
        check = "import importlib.util as u; print(*[n for n in ('torch','diffusers','transformers','safetensors') if not u.find_spec(n)])"
        lacks = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True).stdout.split()
        if lacks:
            raise Skipped(NO_DIFFUSERS.format(", ".join(lacks)))
        batches = ",".join(map(str, BATCHES))
        script = ROOT / "tests/gpu/torch_images.py"
        return self.images("torch", [sys.executable, script, "--model", self.model or "", "--batches", batches], seconds)


def read(path):
    """A short text file."""
    return path.read_text().strip() if path.is_file() else ""


def libraries():
    """Folders that may hold CUDA's libraries, for LD_LIBRARY_PATH."""
    site = Path(sysconfig.get_paths()["purelib"]) / "nvidia"
    places = [*sorted(site.glob("*/lib")), *sorted((ROOT / "target/cuda/venv").glob("lib/python*/site-packages/nvidia/cu13/lib"))]
    places += [Path("/usr/local/cuda/lib64"), Path("/usr/local/nvidia/lib64")]
    known = [str(place) for place in places if place.is_dir()]
    return ":".join(known + [path for path in [os.environ.get("LD_LIBRARY_PATH")] if path])


def unresolved(program, env):
    """Libraries that the loader does not find."""
    said = subprocess.run(["ldd", program], env={**os.environ, **env}, capture_output=True, text=True).stdout
    return [line.split()[0] for line in said.splitlines() if "not found" in line]


def stand_in(built_in):
    """Tests look for models where they were compiled: a link leads from there to here."""
    there = Path(built_in or ROOT)
    if there.exists():
        return
    try:
        there.parent.mkdir(parents=True, exist_ok=True)
        there.symlink_to(ROOT)
    except OSError as error:
        raise Skipped(f"the tests look for models in {there}, and no link can be made there: {error}") from error


def gpu():
    """Name, driver and memory of the first GPU."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader", "-i", "0"]
    said = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip().splitlines()[0]
    return dict(zip(("name", "driver", "memory"), (part.strip() for part in said.split(","))))


def table(device, results):
    """What people read, in the form of docs/performance.md."""
    data = {result["stage"]: result for result in results}

    def measured(stage):
        lines = (data.get(stage) or {}).get("data") or []
        return {(line["what"], line["batch"]): line for line in lines if "batch" in line}

    ours, theirs = measured("excite"), measured("torch")
    number = lambda value, form: "-" if value is None else form.format(value)
    rows = [
        "| seconds an image | batch | excite | diffusers | ratio | memory, GB: excite | diffusers |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for what in ("plain", "guided"):
        for batch in BATCHES:
            a, b = ours.get((what, batch), {}), theirs.get((what, batch), {})
            seconds = [line.get("seconds_per_image") for line in (a, b)]
            peaks = [line["peak_bytes"] / 1e9 if line.get("peak_bytes") else None for line in (a, b)]
            ratio = seconds[0] / seconds[1] if None not in seconds else None
            cells = [what, str(batch), *(number(s, "{:.3f}") for s in seconds), number(ratio, "{:.2f}"), *(number(p, "{:.1f}") for p in peaks)]
            rows.append(f"| {' | '.join(cells)} |")
    for result in results:
        if result["stage"].startswith("parity"):
            verdict = [line["why"] for line in result.get("data") or [] if "verdict" in line]
            rows.append(f"\n{result['stage']}: {result['status']}: {verdict[0] if verdict else result.get('why', '')}")
    commit = ((data.get("build") or {}).get("data") or {}).get("commit", "-")
    rows.append(f"\n{device['name']}, driver {device['driver']}; commit {commit}; SD 1.4's size, random weights in f16, 50 steps of PNDM, 512x512")
    return "\n".join(rows)


def main():
    """Run the stages, print the table, write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="where logs and gpu.json go")
    parser.add_argument("--seconds", type=float, required=True, help="for all stages together")
    args = parser.parse_args()

    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    stages, began = Stages(out, args.seconds), time.monotonic()
    stages.stage("build", 300, stages.build)
    stages.stage("tests", 120, stages.tests)
    stages.stage("parity f32", 60, lambda seconds: stages.parity("f32", seconds))
    stages.stage("parity f16", 60, lambda seconds: stages.parity("f16", seconds))
    stages.stage("model", 60, stages.write_model)
    stages.stage("excite", 150, stages.excite)
    stages.stage("torch", 120, stages.torch)
    device = gpu()
    text = table(device, stages.results)
    print(f"\n{text}\n")
    for result in stages.results:
        print(f"{result['stage']:<12} {result['status']:<8} {result['seconds']:>6.1f} s  {result.get('why', '')}")
    report = {
        "v": 1,
        "device": device,
        "seconds": round(time.monotonic() - began, 1),
        "stages": stages.results,
        "table": text,
    }
    (out / "gpu.json").write_text(json.dumps(report, indent=1) + "\n")
    print(f"written to {out / 'gpu.json'}")
    failed = any(result["status"] == "failed" for result in stages.results)
    nothing = all(result["status"] != "passed" for result in stages.results)
    return 1 if failed or nothing else 0


if __name__ == "__main__":
    sys.exit(main())
