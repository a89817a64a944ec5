"""The process that carries out light jobs: found by those who may, gone when it should be, nothing lost with it."""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import landlockpy
import propose
import psutil
import pytest
from conftest import REPOSITORY
from evaluating import KERNEL, is_gone, wait_for
from llm_server import LLMServer, Reply
from snakernel import proposal, warm, worker
from snakernel.config import config_yaml, load_config
from snakernel.evaluation.sandbox import PR_SET_NO_NEW_PRIVS
from snakernel.evaluation.verdict import Evaluation
from snakernel.files import read_model, write_model, write_text
from snakernel.llm.base import Answer
from snakernel.llm.journal import lost_requests
from snakernel.search import create_strategy
from unit.test_prompts import TASK, make_task

KEYS = {"api_type": "openai", "model_name": "gpt-6-sol", "max_completion_tokens": 1000, "max_cost": 100.0}


class Run:
    """A run's folder and environment, and proposals in it."""

    def __init__(self, folder: Path, server: LLMServer):
        self.server = server
        self.environment = {**os.environ, **server.environment()}
        # No certificates to read for each client: half the time.
        self.environment["SSL_CERT_DIR"] = str(folder)
        self.config = self.configure(folder / "config.yaml")
        self.results = load_config({"save_path": str(folder), "run": "run"}).results
        self.task = make_task(self.results / TASK)
        self.start_state = folder / "start.json"
        write_model(self.start_state, create_strategy(load_config(KEYS), TASK).start())
        self.steps = 0
        self.begin()

    def begin(self) -> None:
        """Have a process whose end is the end of the run."""
        self.process = subprocess.Popen(["sleep", "1000"])
        self.environment[warm.RUN_PID] = str(self.process.pid)

    def configure(self, path: Path, **keys: object) -> Path:
        """Write a configuration."""
        write_text(path, config_yaml(load_config({**KEYS, "save_path": str(path.parent), "run": "run", **keys})))
        return path

    def arguments(self, step: int, config: Path | None = None) -> list[str]:
        """propose.py's for a step."""
        where = ["--config", config or self.config, "--task-folder", self.task, "--step", step]
        return [*map(str, where), "--state", str(self.start_state)]

    def out(self, step: int) -> Path:
        """A step's response.json."""
        return self.task / f"step_{step}" / "response.json"

    def start(self, config: Path | None = None) -> tuple[int, subprocess.Popen[str]]:
        """Begin to propose the next step; its number, and the process."""
        self.steps += 1
        command = [sys.executable, str(REPOSITORY / "scripts" / "propose.py"), *self.arguments(self.steps, config)]
        told = subprocess.PIPE
        return self.steps, subprocess.Popen(command, env=self.environment, stdout=told, stderr=told, text=True)

    def start_unanswered(self) -> tuple[int, subprocess.Popen[str]]:
        """The same, and wait until the server has the request, which it will not answer."""
        self.server.reset()
        self.server.script(Reply(fault="silent"))
        begun = self.start()
        wait_for(lambda: self.server.requests)
        return begun

    def ask(self, config: Path | None = None) -> Answer:
        """Propose the next step."""
        step, process = self.start(config)
        return self.answer(step, process)

    def answer(self, step: int, process: subprocess.Popen[str]) -> Answer:
        """The answer that a process writes."""
        out, err = process.communicate()
        assert process.returncode == 0, err
        assert "asked gpt-6-sol" in out
        return read_model(self.out(step), Answer)

    @property
    def parent(self) -> warm.Parent:
        """Where the worker is, or would be."""
        return worker.parent_of(self.config, self.environment, str(self.process.pid))

    def worker(self) -> psutil.Process:
        """The worker of this run, which is started where it is not there."""
        if not self.workers():
            self.ask()
        (worker,) = self.workers()
        return worker

    def close(self) -> None:
        """End the run, and see its worker go."""
        self.process.kill()
        self.process.wait()
        wait_for(lambda: not self.workers())

    def workers(self) -> list[psutil.Process]:
        """The worker of this run: one, or none. Its forks have the same command."""
        name = str(self.parent.socket)
        found = [one for one in psutil.process_iter(["cmdline", "ppid"]) if name in (one.info["cmdline"] or [])]
        return [one for one in found if one.info["ppid"] not in {other.pid for other in found}]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    with LLMServer() as server:
        run = Run(tmp_path_factory.mktemp("run"), server)
        yield run
        run.close()


def test_one_worker_serves_all_and_gives_the_answer_that_a_process_of_its_own_gives(run: Run) -> None:
    run.server.reset()
    first = run.ask()
    (found,) = run.workers()
    second = run.ask()
    assert run.workers() == [found]
    assert found.children() == [] and found.num_threads() == 1
    without = run.configure(run.config.with_name("cold.yaml"), warm=False)
    cold = run.ask(without)
    assert run.server.answered == len(run.server.requests) == 3
    skip = {"started", "ended", "request"}
    assert first.model_dump(exclude=skip) == second.model_dump(exclude=skip) == cold.model_dump(exclude=skip)
    assert first.request.prompt == run.out(run.steps - 2).with_name("prompt.md").read_text()


def test_a_caller_that_is_killed_takes_its_question_with_it(run: Run) -> None:
    worker = run.worker()
    lost = len(lost_requests(run.results, TASK))
    step, caller = run.start_unanswered()
    assert len(worker.children()) == 1
    caller.send_signal(signal.SIGKILL)
    caller.communicate()
    wait_for(lambda: not worker.children())
    assert not run.out(step).exists()
    run.steps -= 1
    run.ask()
    assert [sent.why for sent in lost_requests(run.results, TASK)[lost:]] == ["its process was killed"]
    assert (len(run.server.requests), run.server.answered) == (2, 1)
    assert run.workers() == [worker]


def test_a_worker_that_is_killed_takes_its_forks_with_it_and_is_replaced(run: Run) -> None:
    worker = run.worker()
    lost = len(lost_requests(run.results, TASK))
    step, caller = run.start_unanswered()
    (fork,) = worker.children()
    worker.kill()
    assert run.answer(step, caller).text == "hello"
    assert is_gone(fork)
    assert len(lost_requests(run.results, TASK)) == lost + 1
    assert (len(run.server.requests), run.server.answered) == (2, 1)
    assert run.workers() not in ([], [worker])


def test_a_question_that_fails_is_told_in_the_callers_log(run: Run) -> None:
    run.server.script(Reply(status=401))
    _, process = run.start()
    _, err = process.communicate()
    assert process.returncode == 1
    assert err.startswith("error: OpenAI at 127.0.0.1 refused the request for model 'gpt-6-sol' with status 401")


def forge(parent: warm.Parent, token: str, request: dict[str, Any], confined: bool) -> int:
    """Ask the worker oneself; how many bytes it answers. Confined: as a candidate is."""
    if confined:
        ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(parent.socket))
        message = {"token": token, "folder": "/", "script": "propose", "threads": {}, **request}
        try:
            socket.send_fds(caller, [json.dumps(message).encode() + b"\n"], [1, 2])
            return len(caller.recv(100))
        except OSError:
            return 0


def _forge(*arguments: Any) -> None:
    os._exit(forge(*arguments))


def test_who_has_no_token_or_is_confined_is_not_served(run: Run) -> None:
    run.worker()
    parent = run.parent
    assert parent.socket.stat().st_mode & 0o777 == parent.token.stat().st_mode & 0o777 == 0o600
    assert parent.socket.parent.stat().st_mode & 0o777 == 0o700
    token = parent.token.read_text()
    for known, confined, served in (("x", False, False), (token, True, False), (token, False, True)):
        run.server.reset()
        run.steps += 1
        request = {"config": str(run.config), "arguments": run.arguments(run.steps)}
        process = multiprocessing.get_context("fork").Process(target=_forge, args=(parent, known, request, confined))
        process.start()
        process.join()
        assert (process.exitcode > 0, run.out(run.steps).exists(), len(run.server.requests)) == (served,) * 3


def test_a_job_does_without_a_worker_that_cannot_be_started(run: Run) -> None:
    run.close()
    run.begin()
    run.parent.token.mkdir()
    try:
        assert run.ask().text == "hello"
        assert run.workers() == []
    finally:
        run.parent.token.rmdir()


def test_what_killed_parents_left_is_removed_by_the_next_one(run: Run) -> None:
    """Their files, when they are an hour old; not those of a parent that serves, nor of one that is just starting."""
    folder = run.parent.socket.parent
    hour_ago = time.time() - 3700
    left = [folder / f"test-{os.getpid()}-{name}" for name in ("dead.sock", "dead.token", "dead.lock", "young.token")]
    with socket.socket(socket.AF_UNIX) as listener:
        served = folder / f"test-{os.getpid()}-served.sock"
        listener.bind(str(served))
        listener.listen()
        for path in left:
            path.touch()
        (folder / f"test-{os.getpid()}-young.lock").touch()
        strange = folder / f"test-{os.getpid()}-strange.token"
        strange.mkdir()
        for path in (served, strange, *left):
            os.utime(path, (hour_ago, hour_ago))
        warm._remove_left_behind(run.parent.socket)
        strange.rmdir()
        assert [path.exists() for path in (*left, served)] == [False, False, False, True, True]
    for path in folder.glob(f"test-{os.getpid()}-*"):
        path.unlink()


def test_the_worker_goes_when_its_run_is_killed(run: Run) -> None:
    worker, parent = run.worker(), run.parent
    run.close()
    wait_for(lambda: is_gone(worker))
    assert not parent.socket.exists() and not parent.token.exists()
    run.begin()  # the tests share it, in any order


CASES = {
    "a service": ({}, ["find", "start"]),
    "not warm": ({"warm": False}, ["find"]),
    "replay": ({"api_type": "replay", "replay_path": "answers"}, ["find", "start"]),
    "not in a run": ({}, []),
    "a fork": ({}, []),
    "skipped": ({}, []),
}


@pytest.mark.parametrize("name", CASES)
def test_a_worker_is_started_only_where_a_job_of_a_run_needs_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, calls = CASES[name]
    task = tmp_path / "run" / "task"
    config = tmp_path / "config.yaml"
    write_text(config, config_yaml(load_config({**KEYS, **keys})))
    state = tmp_path / "best.json"
    write_text(state, json.dumps({"stopped": "enough" if name == "skipped" else None}))
    monkeypatch.setenv(warm.RUN_PID, "1")
    monkeypatch.setattr(worker, "is_fork", name == "a fork")
    if name == "not in a run":
        monkeypatch.delenv(warm.RUN_PID)
    made, proposed = [], []
    monkeypatch.setattr(warm, "call", lambda *_, start=None: made.append("start" if start else "find"))
    monkeypatch.setattr(proposal, "propose", lambda config, folder, step, *_: proposed.append(step))
    command = ["--config", config, "--task-folder", task, "--step", 1, "--state", state]
    monkeypatch.setattr(sys, "argv", ["propose.py", *map(str, command)])
    propose.main()
    assert made == calls
    assert proposed == ([] if name == "skipped" else [1])


SPY = """
import os
import socket


def attempt(what, function):
    try:
        print(what, "got", function())
    except OSError as error:
        print(what, "refused", type(error).__name__)


def call():
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(10)
        caller.connect(SOCKET)
        caller.sendall(b'{"token": "x"}' + bytes([10]))
        return len(caller.recv(100))


attempt("folder", lambda: os.listdir(os.path.dirname(SOCKET)))
attempt("token", lambda: open(TOKEN).read())
attempt("environment", lambda: open(f"/proc/{PID}/environ").read())
attempt("memory", lambda: open(f"/proc/{PID}/mem", "rb").read(1))
attempt("signal", lambda: os.kill(PID, 0))
attempt("answer", call)

"""


def test_no_kernel_reaches_the_worker(judged: Callable[..., Any], tmp_path: Path) -> None:
    if landlockpy.abi_version() < 6:
        pytest.skip("this kernel has no Landlock, or none that keeps signals")
    with LLMServer() as server:
        run = Run(tmp_path, server)
        worker = run.worker()
        assert run.environment["OPENAI_API_KEY"] in worker.environ().values()
        known = f"SOCKET, TOKEN, PID = {str(run.parent.socket)!r}, {str(run.parent.token)!r}, {worker.pid}\n"
        kernel = known + SPY + json.loads(KERNEL.read_text())["sources"][0]["content"]
        # In a process of its own: it ends all that it has as children, and this one has the run.
        out = tmp_path / "verdict.json"
        judge = multiprocessing.get_context("fork").Process(target=lambda: write_model(out, judged(kernel)))
        judge.start()
        judge.join()
        verdict = read_model(out, Evaluation)
        assert run.workers() == [worker]
        run.close()
    assert verdict.correct, verdict.error
    told = dict(line.split(" ", 1) for line in verdict.log.splitlines() if " refused " in line or " got " in line)
    assert set(told) == {"folder", "token", "environment", "memory", "signal", "answer"}
    assert all("refused" in one for name, one in told.items() if name != "answer"), told
    assert told["answer"] in ("got 0", "refused ConnectionResetError", "refused BrokenPipeError"), told
