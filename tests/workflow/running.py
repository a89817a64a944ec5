"""A copy of the project in a folder of its own, run by the real snakemake."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml
from conftest import REPOSITORY

PARTS = ("Snakefile", "rules", "scripts", "prompts", "report", "config", "profiles", "environment.yml")
SMALL = {
    "test_source": "mini",
    "run": "small",
    "agent_type": "iterative",
    "tasks_path": "tasks.txt",
    "dataset_root": str(REPOSITORY / "datasets" / "mini"),
    "total_steps": 3,
    "gpu_name": "Triton's interpreter",
    "gpu_architecture": "CPU",
    "api_type": "replay",
    "model_name": "recorded",
    "replay_path": "replay",
    "eval_backend": "cpu",
    "max_workloads": 1,
    "num_trials": 1,
    "warmup_runs": 0,
    "iterations": 1,
    "confirm_draws": 0,
    "baseline_author": "nobody",
}
TASKS = ("rmsnorm_rmsnorm_h256", "activation_silu_and_mul_h384")


@dataclass
class Project:
    """A checkout, and what was run in it."""

    folder: Path

    @classmethod
    def create(cls, folder: Path, **keys: object) -> Project:
        """A new checkout with a configuration for two tasks of three steps; ``keys`` change it."""
        folder.mkdir(parents=True)
        ignore = shutil.ignore_patterns("__pycache__")
        for part in PARTS:
            source = REPOSITORY / part
            if source.is_dir():
                shutil.copytree(source, folder / part, ignore=ignore)
            else:
                shutil.copy2(source, folder / part)
        shutil.copytree(REPOSITORY / "datasets" / "mini" / "answers", folder / "replay")
        (folder / "tasks.txt").write_text("rmsnorm, rmsnorm_h256\nactivation, silu_and_mul_h384\n")
        project = cls(folder)
        project.configure(**keys)
        return project

    def copy(self, folder: Path) -> Project:
        """The same checkout elsewhere, with all that was run in it and all times kept (cp -a)."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Project(folder)

    def configure(self, **keys: object) -> None:
        """Write the configuration."""
        self.config.write_text(yaml.safe_dump(SMALL | keys, sort_keys=False))

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.folder / "config.yaml"

    @property
    def results(self) -> Path:
        """The run's folder."""
        return self.folder / "results" / "small"

    def snakemake(self, *arguments: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run snakemake in the checkout."""
        import os

        command = [sys.executable, "-m", "snakemake", "--configfile", str(self.config)]
        if "--cores" not in arguments:
            command += ["--cores", "2"]
        done = subprocess.run(
            [*command, *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            env={**os.environ, **environment},
        )
        if check and done.returncode:
            raise AssertionError(f"snakemake {' '.join(arguments)}: {done.stdout[-3000:]}\n{done.stderr[-6000:]}")
        return done

    def plan(self, *arguments: str) -> dict[str, int]:
        """How many jobs of each rule ``snakemake -n`` would run."""
        done = self.snakemake("-n", *arguments)
        text = done.stdout + done.stderr
        table = re.search(r"^job +count\n-+ +-+\n(.*?)\n\n", text, re.MULTILINE | re.DOTALL)
        if table is None:
            assert "Nothing to be done" in text, text
            return {}
        return {name: int(count) for name, count in (line.split() for line in table[1].splitlines()) if name != "total"}

    def journal(self) -> dict[str, bytes]:
        """The journal's entries."""
        answers = self.results / "answers"
        return {str(path.relative_to(answers)): path.read_bytes() for path in sorted(answers.rglob("[!.]*.json"))}

    def forbid_asking(self) -> None:
        """Take the recorded answers away: whoever asks for one now fails."""
        (self.folder / "replay").rename(self.folder / "replay away")

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace a text in a file of the checkout."""
        path = self.folder / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
