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
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY
from llm_server import LLMServer, Received, Reply
from snakernel.llm.journal import lost_requests
from workflow.running import Project

from faults.campaign import run_campaigns, work_on
from faults.conftest import write_row
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
    of_kind,
    resume,
    start,
    unlock,
    waited,
)

pytestmark = pytest.mark.faults

Record = Callable[[str, Tally], None]
KILLS = int(os.environ.get("FAULTS_KILLS", "200"))
SEED = int(os.environ.get("FAULTS_SEED", "1"))
"""Of the kills."""
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


@pytest.mark.parametrize("when", ["", " while a kernel is judged"])
def test_kills(fresh: Project, whole: dict[str, Any], place: Path, when: str) -> None:
    tallies: dict[str, Tally] = {}
    for tallies in run_campaigns(fresh, whole, place, KILLS // 2, SEED, judging=bool(when)):
        for fault, tally in tallies.items():
            write_row(f"{fault}{when}", tally)
        print(f"{datetime.now():%H:%M:%S}", {fault: tally.tried for fault, tally in tallies.items()}, flush=True)
    for tally in tallies.values():
        tally.check()
    assert sum(tally.tried for tally in tallies.values()) == KILLS // 2


@root
def test_the_disk_is_full(fresh: Project, whole: dict[str, Any], place: Path, record: Record) -> None:
    tally = Tally()
    for stage in some(STAGES):
        project = fresh.copy(place)
        with small_disk(project.folder / "results", 24):
            ledger = Ledger(project, tally)
            run = start(project)
            waited((project.results / stage).exists, run)
            ballast = fill(project.folder / "results")
            tally.meet(stage, run.wait())
            said = (project.folder / "run.log").read_text()
            if run.returncode and "No space left" not in said:
                tally.err(f"{stage}: the full disk is not named: {said[-2000:]}")
            ballast.unlink()
            ledger.look()
            resume(project, tally)
            ledger.look()
            compare(project, whole, tally)
        shutil.rmtree(place)
    record("disk full, from each stage on", tally)


@root
def test_results_are_read_only(fresh: Project, whole: dict[str, Any], place: Path, record: Record) -> None:
    tally = Tally()
    for stage in some(STAGES):
        project = fresh.copy(place)
        folder = project.folder / "results"
        with small_disk(folder, 24):
            ledger = Ledger(project, tally)
            run = start(project)
            waited((project.results / stage).exists, run)
            # Refused as long as a file is open for writing.
            remount = ["mount", "-o", "remount,ro", str(folder)]
            refused = waited(lambda: subprocess.run(remount, capture_output=True).returncode == 0, run)  # noqa: B023
            tally.meet(stage, run.wait() and refused)
            subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
            said = (project.folder / "run.log").read_text()
            if run.returncode and "Read-only" not in said:
                tally.err(f"{stage}: what is read-only is not named: {said[-2000:]}")
            ledger.look()
            resume(project, tally)
            ledger.look()
            compare(project, whole, tally)
        shutil.rmtree(place)
    record("results become read-only", tally)


@root
def test_the_folder_for_temporary_files_is_full(
    fresh: Project, whole: dict[str, Any], place: Path, record: Record
) -> None:
    tally = Tally()
    for stage in some((None, *STAGES[:-1])):
        end_parents()
        project = fresh.copy(place)
        scratch = place.with_name("scratch")
        with small_disk(scratch, 8):
            ledger = Ledger(project, tally)
            if stage is None:
                ballast = fill(scratch)
                run = start(project, TMPDIR=str(scratch))
                tally.meet(stage, True)
            else:
                run = start(project, TMPDIR=str(scratch))
                tally.meet(stage, waited((project.results / stage).exists, run))
                ballast = fill(scratch)
            run.wait()
            ledger.look()
            ballast.unlink()
            resume(project, tally, TMPDIR=str(scratch))
            ledger.look()
            compare(project, whole, tally)
            end_parents()
        shutil.rmtree(place)
    record("the folder for temporary files is full", tally)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "changed": lambda content: content[: len(content) // 2] + b"7" + content[len(content) // 2 + 1 :],
}


def test_a_file_is_damaged(finished: Project, whole: dict[str, Any], place: Path, record: Record) -> None:
    """It is rebuilt, or named with what to do, which then works; nothing is made of what it says."""
    tally = Tally()
    # Of the steps the second; what the evaluator keeps of the reference has hashes that each reading checks.
    names = [name for name in whole if not re.search(r"step_[13]|answers/.*/[13]\.json|\.safetensors", name)]
    derived = ("config.yaml", "summary.csv", f"{TASK}/reference.py", f"{TASK}/best/solution.json")
    for name, damage in some((name, damage) for name in names for damage in DAMAGES):
        project = finished.copy(place)
        path = project.results / name
        whole_file = path.read_bytes()
        path.write_bytes(DAMAGES[damage](whole_file))
        tally.meet(f"{name} {damage}", path.read_bytes() != whole_file)
        before = len(tally.told)
        ledger = Ledger(project, Tally())
        code, said = finish(project)
        if code or essence_or_none(project) != whole:
            told = subprocess.run(
                [sys.executable, "scripts/check_results.py", "results/small"],
                cwd=project.folder,
                capture_output=True,
                text=True,
            ).stdout
            # What is only for people, and read by no rule, is what its own rule makes of what is checked.
            if name not in (*derived, "summary.json") and name not in said + told:
                tally.err(f"not named: {said[-1500:]} {told}")
            unlock(project)
            if name.startswith("answers/"):
                number = Path(name).stem
                shutil.copy(project.results / TASK / f"step_{number}" / "response.json", path)
                code, said = finish(project)
            else:
                # No rule makes config.yaml: each start that has something to do writes it.
                target = "summarize" if name == "config.yaml" else str(path.relative_to(project.folder))
                code, said = finish(project, "--forcerun", target)
            if code:
                tally.err(f"not remedied: {said[-1500:]}")
            ledger.look()
            compare(project, whole, tally)
        tally.told[before:] = [f"{name} {damage}: {text}" for text in tally.told[before:]]
        shutil.rmtree(place)
    record("a file of the results is emptied, cut or changed", tally)


def essence_or_none(project: Project) -> dict[str, Any] | None:
    """What a run left; None where a file is no JSON."""
    try:
        return essence(project)
    except ValueError:
        return None


def test_two_processes_on_one_folder(fresh: Project, whole: dict[str, Any], place: Path, record: Record) -> None:
    """The second is told that the folder is locked; with --nolock, both work on it."""
    tally = Tally()
    for options, stage in some(
        (options, stage) for options in ((), ("--nolock",)) for stage in ("config.yaml", *STAGES[:-1:2])
    ):
        project = fresh.copy(place)
        ledger = Ledger(project, tally)
        first = start(project, *options)
        tally.meet((options, stage), waited((project.results / stage).exists, first))
        code, said = finish(project, *options)
        first.wait()
        if not options and (code == 0 or "--unlock" not in said):
            tally.err(f"a second process was let in: {said[-1500:]}")
        ledger.look()
        resume(project, tally)
        ledger.look()
        compare(project, whole, tally)
        shutil.rmtree(place)
    record("two Snakemake processes on one folder", tally)


def test_the_clock_is_set_back(fresh: Project, whole: dict[str, Any], place: Path, record: Record) -> None:
    """What was made before has times that are still to come, or that are long gone."""
    tally = Tally()
    for stage, days in some((stage, days) for stage in STAGES for days in (1, -400)):
        project = fresh.copy(place)
        ledger = Ledger(project, tally)
        run = start(project)
        tally.meet((stage, days), waited((project.results / stage).exists, run))
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        for path in (project.folder / "results").rglob("*"):
            seen = path.stat().st_mtime + days * 86_400
            os.utime(path, (seen, seen))
        ledger.look()
        resume(project, tally)
        ledger.look()
        compare(project, whole, tally)
        shutil.rmtree(place)
    record("the clock is set back a day, or on 400", tally)


def test_the_dataset_is_edited(fresh: Project, place: Path, record: Record) -> None:
    """Verdicts are those of the dataset as it is now; what was asked stays as it was asked."""
    tally = Tally()

    def edit(project: Project) -> None:
        path = project.folder / "dataset" / "workloads" / "rmsnorm" / f"{DEFINITION}.jsonl"
        lines = path.read_text().splitlines(keepends=True)
        first = json.loads(lines[0])
        first["workload"]["axes"]["batch_size"] = 3
        path.write_text("".join([json.dumps(first) + "\n", *lines[1:]]))

    def checkout() -> Project:
        project = fresh.copy(place)
        shutil.copytree(REPOSITORY / "datasets" / "mini", project.folder / "dataset")
        project.configure(dataset_root="dataset", warm_idle_s=600.0)
        return project

    alone = checkout()
    edit(alone)
    code, said = finish(alone)
    assert code == 0, said
    whole = {name: content for name, content in essence(alone).items() if not name.startswith("answers/")}
    shutil.rmtree(place)
    for stage in some(STAGES):
        project = checkout()
        ledger = Ledger(project, tally)
        run = start(project)
        tally.meet(stage, waited((project.results / stage).exists, run))
        edit(project)
        run.wait()
        ledger.look()
        resume(project, tally)
        ledger.look()
        compare(project, whole, tally, but=r"^answers/|prompt\.|response\.json")
        shutil.rmtree(place)
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


def test_the_network_goes(place: Path, record: Record) -> None:
    """The service goes and comes back, and proposals die while they wait for it."""
    tally = Tally()
    keys = {"api_type": "openai", "model_name": "gpt-4o-mini"}
    key = {"OPENAI_API_KEY": "no-key-at-all"}
    with LLMServer(Numbered()) as server:
        alone = create(place, **keys, api_base=server.url)
        code, said = finish(alone, **key)
        assert code == 0, said
    whole = essence(alone)
    shutil.rmtree(place)
    # After the first two the next answer is still to come.
    for stage in some((None, STAGES[0], STAGES[1], STAGES[4], STAGES[5], STAGES[7], STAGES[8])):
        answers = Numbered()
        with LLMServer(answers) as server:
            project = create(place, **keys, api_base=server.url)
            port = int(server.url.rpartition(":")[2])
            if stage is not None:
                run = start(project, **key)
                waited((project.results / stage).exists, run)
        ledger = Ledger(project, tally)
        if stage is None:
            run = start(project, **key)
        tally.meet(stage, run.wait())
        said = (project.folder / "run.log").read_text()
        if run.returncode and "127.0.0.1" not in said:
            tally.err(f"{stage}: the address is not named: {said[-1500:]}")
        ledger.look()
        with LLMServer(answers, port=port):
            resume(project, tally, **key)
            kept = len(project.journal())
        ledger.look()
        if kept != 3:
            tally.err(f"{stage}: {kept} entries in the journal")
        compare(project, whole, tally, but="config.yaml")
        shutil.rmtree(place)
    for what, moment in some((what, number / 4) for number in range(4) for what in ("propose.py", "fork", "worker")):
        with LLMServer(Numbered()) as server:
            project = create(place, **keys, api_base=server.url)
            ledger = Ledger(project, tally)
            run = start(project, **key)
            asking: list[int] = []
            waited(lambda: server.requests and (asking.extend(of_kind(run.pid, "fork")) or asking), run)  # noqa: B023
            # The server takes 0.3 s to answer.
            met = work_on(run, asking[0], 0, 0.3 * moment)
            for victim in of_kind(run.pid, what)[:1]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
            tally.meet((what, moment), met)
            run.wait()
            ledger.look()
            resume(project, tally, **key)
            ledger.look()
            # What had come is not asked for again: at most the one that was on its way, which is told as lost.
            lost = len(lost_requests(project.results, TASK))
            tally.doubled += max(0, len(server.requests) - 3 - min(lost, 1))
            compare(project, whole, tally, but=r"config\.yaml|\.lost\.jsonl$|^summary\.")
        shutil.rmtree(place)
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
    for number in range(20):
        command = [sys.executable, "-c", HOLD, str(ledger), "40"]
        runs = [subprocess.Popen(command, env=environment) for _ in range(2)]
        deadline = time.monotonic() + 20
        while not ledger.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        runs[0].kill()
        for run in runs:
            run.wait()
        tally.meet(number, runs[0].returncode == -signal.SIGKILL)
        if runs[1].returncode:
            tally.lost += 1
            tally.told.append("the other run did not get the device")
        killed, holder = runs[0].pid, None
        for line in ledger.read_text().splitlines():
            _, pid, what = line.split()
            # A holder that was killed never says that it is done.
            if what == "+" and holder not in (None, str(killed)):
                tally.err(f"{pid} had the device while {holder} did")
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
