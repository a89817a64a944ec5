"""Whole runs against a service that fails, and runs that are killed: `make test-faults`, a quarter of an hour or more.

The server counts what it was asked and what it answered; the journal and the costs must agree with it.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from conftest import REPOSITORY
from llm_server import LLMServer, Received, Reply
from snakernel.files import read_model
from snakernel.llm.base import Answer, Sent
from snakernel.llm.journal import kept_answers, lost_requests
from snakernel.summary import Summary
from workflow.running import Project

pytestmark = pytest.mark.faults
DEFINITION = "rmsnorm_h256"
TEXT = (REPOSITORY / "datasets" / "mini" / "answers" / DEFINITION / "1.md").read_text()
PRICE = {"input": 1.0, "output": 10.0}
KEYS = {
    "api_type": "openai",
    "model_name": "gpt-6-sol",
    "price": PRICE,
    "max_completion_tokens": 1000,
    "max_cost": 100.0,
}


class Service:
    """Answers of different lengths; told how often a prompt was asked, it fails as a seeded draw says.

    No prompt more than four times, so that none of the steps that ask it is given up.
    """

    def __init__(self, failing: float, delay_s: float):
        self.failing, self.delay_s = failing, delay_s
        self.arrived: list[float] = []
        self.tokens: list[int] = []
        """Of each request that arrived: those of its answer, and none where it has none."""
        self.asked: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, received: Received) -> Reply:
        with self._lock:
            self.arrived.append(time.monotonic())
            self.tokens.append(0)
            number = len(self.arrived)
            prompt = f"{received.body.get('instructions')} {received.prompt}"
            self.asked[prompt] += 1
            draw = random.Random(f"{prompt} {self.asked[prompt]}")
            fails = draw.random() < self.failing and self.failed[prompt] < 4
            self.failed[prompt] += fails
        if fails:
            name = draw.choice(["429", "529", "500", "reset", "cut", "truncated", "error", "slow"])
            with self._lock:
                self.faults[name] += 1
            if name == "slow":
                return self._answer(number, 3.0)
            if name.isdigit():
                return Reply(status=int(name), headers={"retry-after": "1"} if name == "429" else {})
            return Reply(text=TEXT, fault=name)
        return self._answer(number, self.delay_s)

    def _answer(self, number: int, delay_s: float) -> Reply:
        reply = Reply(text=TEXT, input_tokens=1000 + number, output_tokens=100 + number, delay_s=delay_s)
        self.tokens[number - 1] = reply.input_tokens + reply.output_tokens
        return reply

    def most(self, counts: list[int]) -> int:
        """The most of something that requests have in any 60 seconds, by this server's own clock."""
        of_each = list(zip(self.arrived, counts, strict=True))
        return max(sum(count for at, count in of_each if begin <= at < begin + 60) for begin in self.arrived)


def make_project(folder: Path, tasks: int, **keys: object) -> Project:
    """A checkout whose dataset holds the same operator under several names, one workload each."""
    project = Project.create(folder, **keys, dataset_root="many")
    mini = REPOSITORY / "datasets" / "mini"
    definition = json.loads((mini / "definitions" / "rmsnorm" / f"{DEFINITION}.json").read_text())
    workload = json.loads((mini / "workloads" / "rmsnorm" / f"{DEFINITION}.jsonl").read_text().splitlines()[0])
    names = [f"{DEFINITION}_{number}" for number in range(tasks)]
    for name in names:
        for kind, text in (
            ("definitions", json.dumps(definition | {"name": name})),
            ("workloads", json.dumps(workload | {"definition": name}) + "\n"),
        ):
            path = project.folder / "many" / kind / "rmsnorm" / f"{name}.json{'l' if kind == 'workloads' else ''}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    (project.folder / "tasks.txt").write_text(f"rmsnorm, {', '.join(names)}\n")
    return project


def answers_of(project: Project, tasks: int) -> list[Answer]:
    """All answers in the journal."""
    names = [f"rmsnorm_{DEFINITION}_{number}" for number in range(tasks)]
    return [answer for name in names for answer in kept_answers(project.results, name)]


def lost_of(project: Project, tasks: int) -> list[Sent]:
    """All requests that may have been paid for and brought no answer."""
    names = [f"rmsnorm_{DEFINITION}_{number}" for number in range(tasks)]
    return [sent for name in names for sent in lost_requests(project.results, name)]


def files_of(project: Project) -> int:
    """How many files the steps and the journal have."""
    return sum(len(files) for _, _, files in os.walk(project.results))


def test_a_run_against_a_service_that_fails(tmp_path: Path) -> None:
    """12 tasks of 10 steps, 8 questions at once, a fifth of all requests fails; both limits a minute bind.

    Five steps of a task start from the same state, and each task's kernel is judged once, so that more is to be asked
    than the limits let pass, however slow the machine is.
    """
    tasks, steps, per_minute, tokens, in_flight = 12, 10, 20, 50_000, 6
    service = Service(failing=0.2, delay_s=0.3)
    limits = {"requests_per_minute": per_minute, "tokens_per_minute": tokens, "requests_in_flight": in_flight}
    project = make_project(
        tmp_path / "project", tasks, total_steps=steps, parallel_proposals=5, reject_duplicates=True, **KEYS, **limits
    )
    with LLMServer(service) as server:
        environment = server.environment() | {"SNAKERNEL_LOCKS": str(tmp_path)}
        begun = time.monotonic()
        project.snakemake("--cores", "2", "--resources", "llm=8", **environment)
        seconds = time.monotonic() - begun
        assert project.plan() == {}
        answers = answers_of(project, tasks)
        lost = lost_of(project, tasks)
        summary = read_model(project.results / "summary.json", Summary)
        print(
            f"\n{len(server.requests)} requests, {server.answered} answered, {dict(service.faults)}, "
            f"{len(lost)} perhaps paid for, cost {summary.cost_usd:.4f} USD, {seconds:.0f} s, "
            f"at most {server.max_in_flight} in flight, "
            f"at most {service.most([1] * len(service.arrived))} of {per_minute} requests and "
            f"{service.most(service.tokens)} of {tokens} tokens in any 60 s, "
            f"waited {sum(answer.waited_s for answer in answers):.0f} s for retries"
        )
        assert all(row.status == "done" and row.steps == steps for row in summary.tasks)
        # Each answer that was paid for is there once, and nothing else is.
        assert len(answers) == server.answered == tasks * steps
        used = [answer.usage.output_tokens for answer in answers]
        assert len(set(used)) == len(used)
        counts = [(answer.usage.input_tokens, answer.usage.output_tokens) for answer in answers]
        usd = sum(read * PRICE["input"] + written * PRICE["output"] for read, written in counts) / 1e6
        assert summary.cost_usd == pytest.approx(usd)
        assert len(lost) == sum(service.faults[name] for name in ("reset", "cut", "truncated", "error"))
        assert sum(answer.attempts for answer in answers) == len(server.requests)
        assert server.max_in_flight <= in_flight
        assert service.most([1] * len(service.arrived)) == per_minute
        assert service.most(service.tokens) <= tokens


def test_a_run_that_is_killed_thirty_times(tmp_path: Path) -> None:
    """kill -9 of every process of the run at random moments; each time it goes on."""
    tasks, steps, kills = 4, 8, 30
    service = Service(failing=0.0, delay_s=1.0)
    project = make_project(tmp_path / "project", tasks, total_steps=steps, **KEYS)
    command = [sys.executable, "-m", "snakemake", "--configfile", str(project.config), "--cores", "2"]
    command += ["--resources", "llm=8"]
    moments = random.Random(0)
    with LLMServer(service) as server:
        environment = server.environment() | {"SNAKERNEL_LOCKS": str(tmp_path)}
        done = 0
        for _ in range(kills):
            project.snakemake("--unlock", **environment)
            run = subprocess.Popen(
                command,
                cwd=project.folder,
                env={**os.environ, **environment},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            # A moment is told by what the run has done, so that a slow machine is killed as far on as a fast one.
            wanted = files_of(project) + moments.randint(1, 12)
            while run.poll() is None and files_of(project) < wanted:
                time.sleep(0.02)
            time.sleep(moments.uniform(0.0, 1.5))
            if run.poll() is not None:  # it was done first
                continue
            done += 1
            processes = [psutil.Process(run.pid), *psutil.Process(run.pid).children(recursive=True)]
            for process in processes:
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    continue
            run.wait()
        before = len(answers_of(project, tasks))
        project.snakemake("--unlock", **environment)
        project.snakemake("--resources", "llm=8", **environment)
        assert project.plan() == {}
        answers = answers_of(project, tasks)
        lost = lost_of(project, tasks)
        print(
            f"\n{done} of {kills} kills met the run; {before} of {tasks * steps} answers were there at the last one; "
            f"{len(server.requests)} requests, {server.answered} answered, {len(answers)} kept, "
            f"{len(lost)} in flight when killed"
        )
        assert len(answers) == tasks * steps
        used = [answer.usage.output_tokens for answer in answers]
        assert len(set(used)) == len(used)
        # Nothing was asked twice but what was in flight, and all that was in flight is told.
        assert len(server.requests) <= len(answers) + len(lost)
        assert len(answers) <= server.answered <= len(answers) + len(lost)
        summary = read_model(project.results / "summary.json", Summary)
        assert all(row.status == "done" for row in summary.tasks)
        assert summary.lost_requests == len(lost)
    shutil.rmtree(project.folder)
