"""The long form, behind `make test-faults`: every fault, many times, on real runs. docs/faults.md has the table."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY
from llm_server import LLMServer, Received, Reply
from workflow.running import Project

from faults.campaign import kill, run_campaigns
from faults.harness import (
    ANSWERS,
    DEFINITION,
    STAGES,
    TASK,
    Ledger,
    Tally,
    compare,
    create,
    end_parents,
    essence,
    finish,
    resume,
    start,
    unlock,
    waited,
)

pytestmark = pytest.mark.faults

Record = Callable[[str, Tally], None]
KILLS = int(os.environ.get("FAULTS_KILLS", "200"))
POINTS = int(os.environ.get("FAULTS_POINTS", "0"))
"""At how many points of a run every other fault is tried at most; 0: at all."""
root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")


def some(points: Iterable[Any]) -> list[Any]:
    """As many of a fault's points as are wanted, spread over the run."""
    found = list(points)
    count = min(POINTS or len(found), len(found))
    return [found[(2 * number + 1) * len(found) // (2 * count)] for number in range(count)]


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: float) -> Iterator[None]:
    """A tmpfs at a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    size = f"size={int(megabytes * 2**20)}"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Fill a disk to its last byte."""
    ballast = folder / ".ballast"
    with ballast.open("wb") as file, contextlib.suppress(OSError):
        while True:
            os.write(file.fileno(), bytes(4096))
    return ballast


def test_kills(fresh: Project, whole: dict[str, Any], tmp_path: Path, record: Record) -> None:
    tallies = run_campaigns(fresh, whole, tmp_path, KILLS, seed=1)
    for fault, tally in tallies.items():
        record(fault, tally)


@root
def test_the_disk_is_full(fresh: Project, whole: dict[str, Any], tmp_path: Path, record: Record) -> None:
    tally = Tally()
    for number, stage in enumerate(some(STAGES)):
        project = fresh.copy(tmp_path / str(number))
        with small_disk(project.folder / "results", 24):
            ledger = Ledger(project, tally)
            run = start(project)
            if waited(lambda: (project.results / stage).exists(), run, 60):  # noqa: B023
                tally.tried += 1
            ballast = fill(project.folder / "results")
            run.wait()
            said = (project.folder / "run.log").read_text()
            if run.returncode and "No space left" not in said:
                tally.wrong += 1
                tally.told.append(f"{stage}: the full disk is not named: {said[-2000:]}")
            ballast.unlink()
            ledger.look()
            resume(project, tally)
            ledger.look()
            compare(project, whole, tally)
        shutil.rmtree(project.folder)
    record("disk full, from each stage on", tally)


@root
def test_results_are_read_only(fresh: Project, whole: dict[str, Any], tmp_path: Path, record: Record) -> None:
    tally = Tally()
    for number, stage in enumerate(some(STAGES[1::2])):
        project = fresh.copy(tmp_path / str(number))
        folder = project.folder / "results"
        with small_disk(folder, 24):
            ledger = Ledger(project, tally)
            run = start(project)
            if waited(lambda: (project.results / stage).exists(), run, 60):  # noqa: B023
                tally.tried += 1
            # Refused as long as a file is open for writing.
            remount = ["mount", "-o", "remount,ro", str(folder)]
            waited(lambda: subprocess.run(remount, capture_output=True).returncode == 0, run, 60)  # noqa: B023
            run.wait()
            subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
            ledger.look()
            resume(project, tally)
            ledger.look()
            compare(project, whole, tally)
        shutil.rmtree(project.folder)
    record("results become read-only", tally)


@root
def test_the_folder_for_temporary_files_is_full(
    fresh: Project, whole: dict[str, Any], tmp_path: Path, record: Record
) -> None:
    tally = Tally()
    for number, stage in enumerate(some((None, STAGES[2], STAGES[7]))):
        end_parents()
        project = fresh.copy(tmp_path / str(number))
        scratch = tmp_path / f"scratch_{number}"
        with small_disk(scratch, 8):
            ledger = Ledger(project, tally)
            tally.tried += 1
            ballast = fill(scratch) if stage is None else None
            run = start(project, TMPDIR=str(scratch))
            if stage is not None:
                waited(lambda: (project.results / stage).exists(), run, 60)  # noqa: B023
                ballast = fill(scratch)
            run.wait()
            ledger.look()
            assert ballast is not None
            ballast.unlink()
            resume(project, tally, TMPDIR=str(scratch))
            ledger.look()
            compare(project, whole, tally)
            end_parents()
    record("the folder for temporary files is full", tally)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "changed": lambda content: content[: len(content) // 2] + b"7" + content[len(content) // 2 + 1 :],
}


def test_a_file_is_damaged(finished: Project, whole: dict[str, Any], tmp_path: Path, record: Record) -> None:
    """It is rebuilt, or named with what to do, which then works; nothing is made of what it says."""
    tally = Tally()
    # Of the steps the second; what the evaluator keeps of the reference has hashes that each reading checks.
    names = [name for name in whole if not re.search(r"step_[13]|answers/.*/[13]\.json|\.safetensors", name)]
    derived = ("config.yaml", "summary.csv", f"{TASK}/reference.py", f"{TASK}/best/solution.json")
    for name in names:
        for damage, change in DAMAGES.items():
            project = finished.copy(tmp_path / "damaged")
            path = project.results / name
            path.write_bytes(change(path.read_bytes()))
            ledger = Ledger(project, Tally())
            tally.tried += 1
            code, said = finish(project)
            now = essence_or_none(project)
            if code == 0 and now == whole:
                shutil.rmtree(project.folder)
                continue
            told = subprocess.run(
                [sys.executable, "scripts/check_results.py", "results/small"],
                cwd=project.folder,
                capture_output=True,
                text=True,
            ).stdout
            # What is only for people, and read by no rule, is what its own rule makes of what is checked.
            if name not in (*derived, "summary.json") and name not in said + told:
                tally.wrong += 1
                tally.told.append(f"{name} {damage}: not named: {said[-1500:]} {told}")
            unlock(project)
            if name.startswith("answers/"):
                number = Path(name).stem
                shutil.copy(project.results / TASK / f"step_{number}" / "response.json", path)
                code, said = finish(project)
            else:
                code, said = finish(project, "--forcerun", str(path.relative_to(project.folder)))
            if code:
                tally.wrong += 1
                tally.told.append(f"{name} {damage}: not remedied: {said[-1500:]}")
            ledger.look()
            before = len(tally.told)
            compare(project, whole, tally)
            tally.told[before:] = [f"{name} {damage}: {text}" for text in tally.told[before:]]
            shutil.rmtree(project.folder)
    record("a file of the results is emptied, cut or changed", tally)


def essence_or_none(project: Project) -> dict[str, Any] | None:
    """What a run left; None where a file is no JSON."""
    try:
        return essence(project)
    except ValueError:
        return None


def test_two_processes_on_one_folder(fresh: Project, whole: dict[str, Any], tmp_path: Path, record: Record) -> None:
    """The second is told that the folder is locked; with --nolock, both work on it."""
    tally = Tally()
    for number, options in enumerate(some(((), (), ("--nolock",), ("--nolock",), ("--nolock",)))):
        project = fresh.copy(tmp_path / str(number))
        ledger = Ledger(project, tally)
        tally.tried += 1
        first = start(project, *options)
        waited((project.folder / ".snakemake" / "locks").exists, first, 20)
        if not options:
            waited((project.results / "config.yaml").exists, first, 60)
        code, said = finish(project, *options)
        first.wait()
        if not options and (code == 0 or "--unlock" not in said):
            tally.wrong += 1
            tally.told.append(f"a second process was let in: {said[-1500:]}")
        ledger.look()
        resume(project, tally)
        ledger.look()
        compare(project, whole, tally)
    record("two Snakemake processes on one folder", tally)


def test_the_clock_is_set_back(fresh: Project, whole: dict[str, Any], tmp_path: Path, record: Record) -> None:
    """What was made before has times that are still to come, or that are long gone."""
    tally = Tally()
    for number, (stage, days) in enumerate(some((stage, days) for stage in STAGES[3::3] for days in (1, -400))):
        project = fresh.copy(tmp_path / str(number))
        ledger = Ledger(project, tally)
        run = start(project)
        if waited(lambda: (project.results / stage).exists(), run, 60):  # noqa: B023
            tally.tried += 1
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        for path in (project.folder / "results").rglob("*"):
            seen = path.stat().st_mtime + days * 86_400
            os.utime(path, (seen, seen))
        ledger.look()
        resume(project, tally)
        ledger.look()
        compare(project, whole, tally)
    record("the clock is set back a day, or on 400", tally)


def test_the_dataset_is_edited(fresh: Project, tmp_path: Path, record: Record) -> None:
    """Verdicts are those of the dataset as it is now; what was asked stays as it was asked."""
    tally = Tally()

    def edit(project: Project) -> None:
        path = project.folder / "dataset" / "workloads" / "rmsnorm" / f"{DEFINITION}.jsonl"
        lines = path.read_text().splitlines(keepends=True)
        first = json.loads(lines[0])
        first["workload"]["axes"]["batch_size"] = 3
        path.write_text("".join([json.dumps(first) + "\n", *lines[1:]]))

    def checkout(name: str) -> Project:
        project = fresh.copy(tmp_path / name)
        shutil.copytree(REPOSITORY / "datasets" / "mini", project.folder / "dataset")
        project.configure(dataset_root="dataset", warm_idle_s=600.0)
        return project

    alone = checkout("alone")
    edit(alone)
    code, said = finish(alone)
    assert code == 0, said
    whole = {name: content for name, content in essence(alone).items() if not name.startswith("answers/")}
    for number, stage in enumerate(some(STAGES[2:10])):
        project = checkout(str(number))
        ledger = Ledger(project, tally)
        run = start(project)
        if waited(lambda: (project.results / stage).exists(), run, 60):  # noqa: B023
            tally.tried += 1
        edit(project)
        run.wait()
        ledger.look()
        resume(project, tally)
        ledger.look()
        compare(project, whole, tally, but=r"^answers/|prompt\.|response\.json")
    record("the dataset is edited during a run", tally)


class Numbered:
    """Answers each new prompt with the next of the run's answers, and counts."""

    def __init__(self) -> None:
        self.prompts: dict[str, int] = {}

    def __call__(self, request: Received) -> Reply:
        kernel = json.loads(_kernel())["sources"][0]["content"]
        number = self.prompts.setdefault(request.prompt, len(self.prompts) + 1)
        return Reply(text=ANSWERS[min(number, 3)].replace("{kernel}", kernel), delay_s=0.3)


def _kernel() -> str:
    from evaluating import KERNEL

    return KERNEL.read_text()


def test_the_network_goes(tmp_path: Path, record: Record) -> None:
    """The service goes and comes back, and proposals die while they wait for it."""
    tally = Tally()
    keys = {"api_type": "openai", "model_name": "gpt-4o-mini"}
    key = {"OPENAI_API_KEY": "no-key-at-all"}
    with LLMServer(Numbered()) as server:
        alone = create(tmp_path / "alone", **keys, api_base=server.url)
        code, said = finish(alone, **key)
        assert code == 0, said
    whole = essence(alone)
    for stage in some((None, STAGES[4], STAGES[8])):
        answers = Numbered()
        with LLMServer(answers) as server:
            project = create(tmp_path / f"gone_{tally.tried}", **keys, api_base=server.url)
            port = int(server.url.rpartition(":")[2])
            if stage is not None:
                run = start(project, **key)
                waited(lambda: (project.results / stage).exists(), run, 60)  # noqa: B023
        tally.tried += 1
        ledger = Ledger(project, tally)
        if stage is None:
            run = start(project, **key)
        run.wait()
        said = (project.folder / "run.log").read_text()
        if run.returncode == 0 or "127.0.0.1" not in said:
            tally.wrong += 1
            tally.told.append(f"the address is not named: {said[-1500:]}")
        ledger.look()
        with LLMServer(answers, port=port) as server:
            resume(project, tally, **key)
            kept = len(ledger.project.journal())
        ledger.look()
        if kept != 3:
            tally.wrong += 1
        compare(project, whole, tally, but="config.yaml")
    for moment in some((0.1, 0.5, 0.9)):
        with LLMServer(Numbered()) as server:
            project = create(tmp_path / f"killed_{moment}", **keys, api_base=server.url)
            ledger = Ledger(project, tally)
            run = start(project, **key)
            tally.tried += kill(project, run, "propose.py", moment)
            run.wait()
            ledger.look()
            resume(project, tally, **key)
            ledger.look()
            # What had come is not asked for again: at most the one that was on its way.
            tally.doubled += max(0, len(server.requests) - 4)
            compare(project, whole, tally, but="config.yaml")
    record("the network goes, or a proposal dies while it waits", tally)


HOLD = """
import os, sys, time
from snakernel.evaluation.devices import one_device
for _ in range(int(sys.argv[2])):
    with one_device() as device:
        with open(sys.argv[1], "a") as file:
            file.write(f"{device} {os.getpid()} +\\n")
        time.sleep(0.005)
        with open(sys.argv[1], "a") as file:
            file.write(f"{device} {os.getpid()} -\\n")
"""


def test_runs_share_one_device(tmp_path: Path, record: Record) -> None:
    """Never two at a time, also where the one that holds it is killed."""
    tally = Tally()
    (tmp_path / "pynvml.py").write_text(FAKE_NVML)
    ledger = tmp_path / "ledger"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(REPOSITORY / "scripts")]),
        "SNAKERNEL_LOCKS": str(tmp_path),
        "FAKE_DEVICES": "1",
    }
    for _ in range(20):
        command = [sys.executable, "-c", HOLD, str(ledger), "40"]
        runs = [subprocess.Popen(command, env=environment) for _ in range(2)]
        deadline = time.monotonic() + 20
        while not ledger.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        runs[0].kill()
        tally.tried += 1
        for run in runs:
            run.wait()
        if runs[1].returncode:
            tally.lost += 1
            tally.told.append("the other run did not get the device")
        killed, holder = runs[0].pid, None
        for line in ledger.read_text().splitlines():
            _, pid, what = line.split()
            # A holder that was killed never says that it is done.
            if what == "+" and holder not in (None, str(killed)):
                tally.wrong += 1
                tally.told.append(f"{pid} had the device while {holder} did")
            holder = pid if what == "+" else None
        ledger.unlink()
    record("two runs share one device, and one is killed", tally)


FAKE_NVML = """
import os
def nvmlInit(): pass
def nvmlShutdown(): pass
def nvmlDeviceGetCount(): return int(os.environ["FAKE_DEVICES"])
def nvmlDeviceGetHandleByIndex(index): return index
def nvmlDeviceGetUUID(index): return f"GPU-{index}"
"""
