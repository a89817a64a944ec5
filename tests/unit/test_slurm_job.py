"""SLURM's job that stays, against programs of SLURM's names that do as a file says. The real thing: tests/slurm."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY
from snakernel.config import Config, load_config
from snakernel.errors import UserError
from snakernel.evaluation import slurm

CONTROLLER = """#!{python} -SE
import os, sys
from pathlib import Path
name, here = Path(sys.argv[0]).name, Path({folder!r})
with (here / "calls").open("a") as calls:
    print(name, *sys.argv[1:], file=calls)
(here / f"{{name}}.environment").write_text(repr(dict(os.environ)))
jobs = here / "jobs"
if name == "sbatch":
    if "--bad" in sys.argv:
        sys.exit("sbatch: error: unrecognized option '--bad'")
    if "--test-only" not in sys.argv:
        number = sum(line.startswith("sbatch --parsable") for line in (here / "calls").read_text().splitlines())
        jobs.write_text(f"{{number}} RUNNING None\\n")
        print(number)
elif name == "squeue":
    print(jobs.read_text() if jobs.exists() else "", end="")
elif name == "scancel":
    jobs.unlink(missing_ok=True)
else:
    import json
    steps = here / "steps"
    how, _, rest = steps.read_text().partition("\\n")
    steps.write_text(rest)
    request = json.loads(sys.argv[-1])
    if how != "refused":
        Path(request["arguments"]["out"]).write_text(how)
    if how in ("ended", "ending"):
        jobs.unlink()
    sys.exit({{"ended": 143, "ending": 0, "refused": 1, "failed": 99}}.get(how, 0))
"""


class Cluster:
    """Programs of SLURM's names, and what they are asked."""

    def __init__(self, folder: Path):
        self.folder = folder / "cluster"
        (self.folder / "bin").mkdir(parents=True)
        for name in slurm.PROGRAMS:
            program = self.folder / "bin" / name
            program.write_text(CONTROLLER.format(python=sys.executable, folder=str(self.folder)))
            program.chmod(program.stat().st_mode | stat.S_IXUSR)

    def do(self, *steps: str) -> None:
        """How the next job steps go."""
        (self.folder / "steps").write_text("\n".join(steps))

    def calls(self, name: str) -> list[str]:
        """How a program was called."""
        return [line for line in (self.folder / "calls").read_text().splitlines() if line.startswith(f"{name} ")]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster(tmp_path)
    monkeypatch.setenv("PATH", str(made.folder / "bin"))
    return made


def config_of(folder: Path, **keys: object) -> Config:
    values = {"test_source": "mini", "dataset_root": str(REPOSITORY / "datasets" / "mini"), "eval_backend": "cpu"}
    values |= {"save_path": str(folder / "results"), "slurm_job": "--gpus=1 --time=60", "warm": False}
    return load_config(values | keys)


def judge(config: Config, folder: Path) -> int:
    (folder / "kernel.py").write_text("kernel")
    arguments = {"config": "", "task_folder": str(folder), "kernel": str(folder / "kernel.py")}
    return slurm.call(config, "evaluate", arguments | {"out": str(folder / "evaluation.json")})


def test_one_job_serves_many_verdicts_and_gets_no_key(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-not-for-jobs")
    config = config_of(tmp_path)
    for verdict in ("first", "second"):
        cluster.do(verdict)
        assert judge(config, tmp_path) == 0
        assert (tmp_path / "evaluation.json").read_text() == verdict
    (submitted,) = cluster.calls("sbatch")
    assert "--gpus=1 --time=60 --wrap" in submitted
    assert all("--jobid=1 --overlap" in step for step in cluster.calls("srun"))
    for program in slurm.PROGRAMS[:3]:
        assert "not-for-jobs" not in (cluster.folder / f"{program}.environment").read_text()
    slurm.release(config)
    assert f"--name={slurm.job_name(config)}" in cluster.calls("scancel")[0]


@pytest.mark.parametrize("how", ["ended", "ending", "refused"])
def test_what_a_job_was_asked_that_ended_meanwhile_is_asked_again(how: str, cluster: Cluster, tmp_path: Path) -> None:
    """ending: the step says that it is done, but its job is on its way out, and may have killed the kernel."""
    cluster.do(how, "verdict")
    assert judge(config_of(tmp_path), tmp_path) == 0
    assert (tmp_path / "evaluation.json").read_text() == "verdict"
    assert len(cluster.calls("sbatch")) == 1 + (how != "refused")
    assert not list(slurm.folder_of(config_of(tmp_path)).glob("step-*"))


def test_an_action_that_fails_is_not_repeated(cluster: Cluster, tmp_path: Path) -> None:
    cluster.do("failed", "verdict")
    assert judge(config_of(tmp_path), tmp_path) == 1
    assert not (tmp_path / "evaluation.json").exists()


def test_jobs_that_keep_ending_are_an_error_with_their_log(cluster: Cluster, tmp_path: Path) -> None:
    config = config_of(tmp_path)
    log = slurm.log_of(config, "3")
    log.parent.mkdir(parents=True)
    log.write_text("slurmstepd: error: Detected 1 oom_kill event\n")
    cluster.do("ended", "ended", "ended", "verdict")
    with pytest.raises(
        UserError, match="3 jobs .* more time or memory .*3.log: slurmstepd: error: Detected 1 oom_kill"
    ):
        judge(config, tmp_path)
    assert not (tmp_path / "evaluation.json").exists()


def test_options_that_slurm_refuses_are_an_error_before_anything_runs(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"slurm_job: '--bad': SLURM refuses such a job: .*unrecognized option '--bad'"):
        slurm.check_slurm(config_of(tmp_path, slurm_job="--bad"))
    slurm.check_slurm(config_of(tmp_path))
    assert "--test-only" in cluster.calls("sbatch")[-1]
    (cluster.folder / "bin" / "srun").unlink()
    with pytest.raises(UserError, match="not found: srun"):
        slurm.check_slurm(config_of(tmp_path))


@pytest.mark.parametrize(("keys", "told"), [({"eval_backend": "modal"}, "not for modal"), ({"slurm_job": "'"}, "line")])
def test_bad_values(keys: dict[str, str], told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"slurm_job: .*{told}"):
        config_of(tmp_path, **keys)


def test_no_two_runs_share_a_job(tmp_path: Path) -> None:
    names = {
        slurm.job_name(config_of(tmp_path, **keys))
        for keys in ({}, {"run": "other"}, {"slurm_job": "--gpus=2"}, {"save_path": "x"}, {"eval_backend": "local"})
    }
    assert len(names) == 5


@pytest.fixture
def own_environment() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def test_a_step_is_carried_out_in_the_environment_of_its_job(
    tmp_path: Path, own_environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tmp_path)
    kernel = tmp_path / "kernel.py"
    kernel.write_text("kernel")
    (tmp_path / "config.yaml").write_text(slurm.config_yaml(config))
    ready = tmp_path / "7.json"
    ready.write_text(json.dumps({"environment": {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "3"}}))
    os.utime(ready, (0, 0))
    done: list[tuple[object, ...]] = []

    def evaluator(config: Config, action: str, arguments: dict[str, str]) -> int:
        done.append((config.slurm_job, action, dict(os.environ)))
        assert ready.stat().st_mtime > 0
        return int(arguments["kernel"] == "")

    monkeypatch.setattr(slurm.here, "call_evaluator", evaluator)
    monkeypatch.setattr(slurm, "VISIBLE_S", 0.0)
    arguments = {"config": str(tmp_path / "config.yaml"), "kernel": str(kernel)}
    request = {"action": "evaluate", "arguments": arguments, "ready": str(ready)}
    request["contents"] = slurm._contents(slurm._read_by(arguments))
    assert slurm.carry_out(request) == 0
    assert done == [(None, "evaluate", {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "3"})]
    failing = {**request, "arguments": {**arguments, "kernel": ""}}
    assert slurm.carry_out(failing) == slurm.FAILED
    # A kernel that another machine wrote and this one does not see yet is not judged.
    kernel.write_text("another")
    assert slurm.carry_out(request) == slurm.FAILED
    assert len(done) == 2


def test_the_job_leaves_when_nobody_comes(tmp_path: Path) -> None:
    config = config_of(tmp_path, slurm_idle_s=0.1)
    (tmp_path / "config.yaml").write_text(slurm.config_yaml(config))
    done = subprocess.run(
        [sys.executable, str(slurm.SCRIPT), "--config", str(tmp_path / "config.yaml")],
        env={"PATH": os.environ["PATH"], "SLURM_JOB_ID": "7"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("nobody came")
    assert not list(slurm.folder_of(config).iterdir())
