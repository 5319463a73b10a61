"""Runs a program of an image as Kubernetes would with the chart's settings: as process 1 in name
spaces of its own, as the image's uid, without capabilities, on a read-only root, with nothing but
/tmp to write to. The network is this machine's, where the servers are."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

from report import Failed
from tools import run

# Where the second version of control groups is mounted beside the first.
HYBRID = Path("/sys/fs/cgroup/unified")
# Where sockets and the like of name spaces show; nothing that a program could change.
MOUNTS = [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
     "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
    {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs",
     "options": ["nosuid", "nodev", "mode=1777"]},
]


class Container:
    """A program of an image, running."""

    def __init__(self, name: str, folder: Path, root: Path, config: dict, args: list[str],
                 env: dict[str, str], binds: dict[Path, str]) -> None:
        self.name = name
        self.bundle = folder / name
        self.bundle.mkdir(parents=True, exist_ok=True)
        self.state = folder / "crun"
        self.log = self.bundle / "log"
        uid, gid = (int(part) for part in config["User"].split(":"))
        own = dict(variable.split("=", 1) for variable in config["Env"])
        mounts = MOUNTS + [
            {"destination": target, "type": "bind", "source": str(source),
             "options": ["rbind", "ro"]} for source, target in binds.items()]
        spec = {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": uid, "gid": gid},
                "args": [*config["Entrypoint"], *args],
                "env": [f"{key}={value}" for key, value in {**own, **env}.items()],
                "cwd": config["WorkingDir"],
                "capabilities": {kind: [] for kind in (
                    "bounding", "effective", "inheritable", "permitted", "ambient")},
                "noNewPrivileges": True,
            },
            "root": {"path": str(root), "readonly": True},
            "hostname": name,
            "mounts": mounts,
            "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")]},
        }
        (self.bundle / "config.json").write_text(json.dumps(spec, indent=1))
        crun(self.state, "delete", "--force", name, may_fail=True)
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                command(self.state, "run", "--bundle", str(self.bundle), name),
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)

    def last_lines(self, count: int = 8) -> str:
        """What it said last."""
        lines = self.log.read_text(errors="replace").splitlines()[-count:]
        return "\n".join(line[:300] for line in lines)

    def wait(self, seconds: float) -> int:
        """Waits for its end; its exit status."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.name} did not end within {seconds:.0f} s:\n"
                         f"{self.last_lines()}") from None

    def pid(self) -> int:
        """Its first process, as this machine counts."""
        state = json.loads(crun(self.state, "state", self.name))
        return int(state["pid"])

    def confinement(self) -> str:
        """Looks at what the kernel says of the process: who it is, and what it may do."""
        pid = self.pid()
        status = Path(f"/proc/{pid}/status").read_text()
        facts = dict(re.findall(r"^(\w+):\s+(.*)$", status, re.MULTILINE))
        root = next(line.split() for line in
                    Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
                    if line.split()[4] == "/")
        for what, found, want in (
            ("process number inside", facts["NSpid"].split()[-1], "1"),
            ("uid", facts["Uid"].split(), ["65532"] * 4),
            ("gid", facts["Gid"].split(), ["65532"] * 4),
            ("capabilities", facts["CapEff"], "0" * 16),
            ("capabilities that can be had", facts["CapBnd"], "0" * 16),
            ("no new privileges", facts["NoNewPrivs"], "1"),
            ("root is read-only", "ro" in root[5].split(","), True),
        ):
            if found != want:
                raise Failed(f"{self.name}: {what}: it is `{found}` and should be `{want}`")
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if children:
            raise Failed(f"{self.name} started processes ({', '.join(children)}): as process 1 it "
                         "would have to wait for them")
        return "process 1, uid 65532, no capability, read-only root, no child"

    def listens(self, signal: int) -> bool:
        """Whether the program handles a signal: of process 1 the kernel keeps others away."""
        status = Path(f"/proc/{self.pid()}/status").read_text()
        caught = re.search(r"^SigCgt:\s+(\w+)$", status, re.MULTILINE)
        return caught is not None and bool(int(caught[1], 16) >> (signal - 1) & 1)

    def stop(self, signal: str, seconds: float) -> float:
        """Sends a signal; how long it took to end with status 0."""
        start = time.monotonic()
        crun(self.state, "kill", self.name, signal)
        status = self.wait(seconds)
        if status != 0:
            raise Failed(f"{self.name} ended with {status} after {signal}, not with 0:\n"
                         f"{self.last_lines()}")
        return time.monotonic() - start

    def close(self) -> None:
        """Ends it whatever it does."""
        if self.process.poll() is None:
            crun(self.state, "kill", self.name, "KILL", may_fail=True)
            self.process.wait(10)
        crun(self.state, "delete", "--force", self.name, may_fail=True)


def command(state: Path, *words: str) -> list[str]:
    """How crun is started: without control groups, for what is looked at needs none."""
    crun_itself = ["crun", "--root", str(state), "--cgroup-manager=disabled", *words]
    if not HYBRID.is_dir():
        return crun_itself
    # crun refuses machines with groups of both versions, even if it is to use none: it sees one.
    hide = f'umount {HYBRID} && exec "$@"'
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", hide, "sh", *crun_itself]


def crun(state: Path, *words: str, may_fail: bool = False) -> str:
    """Runs crun; what it prints."""
    return run(command(state, *words), may_fail=may_fail).stdout
