"""The budget and the limits, over processes: through the real SDK, against a server on loopback."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path

import pytest
from conftest import REPOSITORY
from evaluating import wait_for
from filelock import FileLock
from llm_server import LLMServer, Reply
from snakernel.config import Price, config_yaml, load_config
from snakernel.dataset import read_tasks
from snakernel.errors import UserError
from snakernel.files import read_model, write_text
from snakernel.llm import limits as limits_module
from snakernel.llm.base import Answer, Request, Usage
from snakernel.llm.estimate import estimate
from snakernel.llm.journal import Journal, Sent, kept_answers, lost_requests
from snakernel.llm.ledger import Ledger
from snakernel.llm.limits import Limits
from snakernel.llm.prices import cost_usd, prompt_tokens, worst_usd
from snakernel.llm.providers import check_budget, create_provider
from snakernel.skipping import NotAsked

FORK = multiprocessing.get_context("fork")
REQUEST = Request(prompt="write a kernel", model="gpt-6-sol", max_completion_tokens=1000)
WORST = worst_usd("openai", REQUEST)


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("first")
    with LLMServer() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment().items():
            patch.setenv(name, value)
        # No certificates to read for each client: half the time.
        patch.setenv("SSL_CERT_DIR", str(folder))
        patch.delenv("SSL_CERT_FILE", raising=False)
        ask(folder, "a", 1, max_cost=1.0)  # what forks find loaded
        yield server


@pytest.fixture
def server(shared_server):
    shared_server.reset()
    shared_server.answer = Reply()
    return shared_server


def ask(results: Path, task: str, step: int, *, more_room: int = 0, ledger=Ledger, **bounds) -> str:
    """Ask a step as propose does; what became of it."""
    journal = Journal(results, task, step)

    def provider():
        service = create_provider(api_type="openai", sleep=lambda _: None)
        service.gate = ledger(journal, "openai", worst_usd, **bounds)
        return service

    try:
        return journal.answer(lambda: REQUEST, provider, more_room=more_room)[0].text
    except (NotAsked, UserError) as error:
        return f"{type(error).__name__}: {error}"


def costs(results: Path) -> list[float]:
    return [
        answer.cost_usd for folder in (results / "answers").iterdir() for answer in kept_answers(results, folder.name)
    ]


def test_a_budget_is_never_passed_by_16_processes(server, tmp_path) -> None:
    """48 questions of 16 processes, and money for 5: as many are answered, though no answer came before the others."""
    server.answer = Reply(output_tokens=1000, input_tokens=prompt_tokens(REQUEST.prompt), delay_s=0.02)
    bound = 5.5 * WORST
    with FORK.Pool(16) as pool:
        told = pool.starmap(
            _ask_bounded, [(tmp_path, f"task{n % 8}", 1 + n // 8, bound) for n in range(48)], chunksize=1
        )
    assert sum(costs(tmp_path)) <= bound
    assert len(costs(tmp_path)) == server.answered == len(server.requests) == told.count("hello") == 5
    assert all(one.startswith("NotAsked: budget spent: ") for one in told if one != "hello")
    assert not list(tmp_path.rglob("*.sent.jsonl"))


def _ask_bounded(results: Path, task: str, step: int, bound: float) -> str:
    return ask(results, task, step, max_cost=bound)


class Meeting(Ledger):
    """Looks at what is spent at the same moment as another, if it can."""

    def __init__(self, barrier, *arguments, **bounds):
        super().__init__(*arguments, **bounds)
        self.barrier = barrier

    def _refusal(self, worst):
        refusal = super()._refusal(worst)
        _meet(self.barrier)
        return refusal


def _ask_meeting(results: Path, task: str, barrier) -> None:
    ask(results, task, 1, ledger=partial(Meeting, barrier), max_cost=1.5 * WORST)


def test_no_two_processes_spend_the_same_money(server, tmp_path) -> None:
    server.answer = Reply(output_tokens=1000)
    barrier = FORK.Barrier(2)
    forks = [FORK.Process(target=_ask_meeting, args=(tmp_path, task, barrier)) for task in "ab"]
    for fork in forks:
        fork.start()
    for fork in forks:
        fork.join()
    assert len(costs(tmp_path)) == len(server.requests) == 1


def test_answers_that_cost_less_than_they_could_leave_room_for_more(server, tmp_path) -> None:
    """No request is refused while others are in flight that may leave enough."""
    server.answer = Reply(delay_s=0.02)
    with FORK.Pool(8) as pool:
        told = pool.starmap(_ask_bounded, [(tmp_path, f"task{n}", 1, 2.5 * WORST) for n in range(8)], chunksize=1)
    assert told == ["hello"] * 8
    assert server.counts()["max_in_flight"] <= 2


def test_the_bound_of_one_task(server, tmp_path) -> None:
    server.answer = Reply(output_tokens=1000)
    told = [ask(tmp_path, task, step, max_cost_per_task=1.5 * WORST) for task in "ab" for step in (1, 2)]
    assert [one.partition(":")[0] for one in told] == ["hello", "NotAsked", "hello", "NotAsked"]
    assert "max_cost_per_task" in told[1]


def test_answers_that_were_set_aside_count(server, tmp_path) -> None:
    server.answer = Reply(output_tokens=1000)
    assert ask(tmp_path, "a", 1, max_cost=1.5 * WORST) == "hello"
    Journal(tmp_path, "a", 1).set_aside()
    assert ask(tmp_path, "a", 1, max_cost=1.5 * WORST).startswith("NotAsked: budget spent")
    assert ask(tmp_path, "a", 1, max_cost=2.5 * WORST) == "hello"
    assert len(kept_answers(tmp_path, "a")) == 2


def damage(results: Path, step: int) -> Path:
    """Cut the entry of a step of task a, and set it aside; the file of its lost requests."""
    journal = Journal(results, "a", step)
    journal.path.write_text(journal.path.read_text()[:100])
    assert journal.set_aside().suffix == ".damaged"
    return journal.lost


def test_what_a_damaged_answer_has_cost_counts(server, tmp_path) -> None:
    """By the copy in its response.json; without one nothing is asked until a person says what it was."""
    server.answer = Reply(output_tokens=1000, input_tokens=prompt_tokens(REQUEST.prompt))
    assert ask(tmp_path, "a", 1, max_cost=9.0) == "hello"
    (paid,) = costs(tmp_path)
    response = tmp_path / "a" / "step_1" / "response.json"
    write_text(response, Journal(tmp_path, "a", 1).path.read_text())
    damage(tmp_path, 1)
    told = ask(tmp_path, "a", 1, max_cost=WORST + 0.9 * paid)
    assert told.startswith(f"NotAsked: budget spent: 0.0000 USD and perhaps {paid:.4f} for requests that were lost")
    assert ask(tmp_path, "a", 1, max_cost=WORST + 1.1 * paid) == "hello"
    response.unlink()
    lost = damage(tmp_path, 1)
    asked = len(server.requests)
    told = ask(tmp_path, "b", 1, max_cost=9.0)
    assert told.startswith(f"UserError: max_cost: nobody knows what a request in {lost} has cost (its answer was dam")
    assert len(server.requests) == asked
    lost.write_text(lost.read_text().replace('"worst_usd":null', '"worst_usd":0.5'))
    assert ask(tmp_path, "b", 1, max_cost=0.5 + WORST).startswith("NotAsked: budget spent")
    assert ask(tmp_path, "b", 1, max_cost=0.5 + 2 * paid + 1.1 * WORST) == "hello"


def test_a_request_without_a_price_then_counts_by_todays(server, tmp_path) -> None:
    journal = Journal(tmp_path, "a", 1)
    journal.folder.mkdir(parents=True)
    tokens = prompt_tokens(REQUEST.prompt)
    values = {"input_tokens": tokens, "max_completion_tokens": 1000, "worst_usd": None}
    when = "2026-01-01T00:00:00.000+00:00"
    journal._add_lost(Sent(started=when, model=REQUEST.model, api_type="openai", **values))
    assert ask(tmp_path, "a", 1, max_cost=1.9 * WORST).startswith("NotAsked: budget spent")
    assert ask(tmp_path, "a", 1, max_cost=2.1 * WORST) == "hello"


def test_a_killed_process_leaves_what_it_may_have_spent(server, tmp_path) -> None:
    server.script(Reply(fault="silent"))
    process = FORK.Process(target=ask, args=(tmp_path, "a", 1))
    process.start()
    wait_for(lambda: server.requests)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    (sent,) = (tmp_path / "answers" / "a").glob("*.sent.jsonl")
    assert Sent.model_validate_json(sent.read_text()).worst_usd == WORST
    # Another step's process finds it.
    assert ask(tmp_path, "b", 1, max_cost=1.5 * WORST).startswith("NotAsked: budget spent: 0.0000 USD and perhaps")
    assert [lost.why for lost in lost_requests(tmp_path, "a")] == ["its process was killed"]
    assert not sent.exists()
    assert ask(tmp_path, "a", 1, max_cost=2.5 * WORST) == "hello"


def test_a_process_that_was_killed_after_the_answer_was_kept_has_lost_nothing(server, tmp_path) -> None:
    journal = Journal(tmp_path, "a", 1)
    ask(tmp_path, "a", 1)
    answer = journal.read()
    journal.send(Sent(started=answer.started, model="m", input_tokens=1, max_completion_tokens=1, worst_usd=1.0))
    assert ask(tmp_path, "a", 1) == "hello"
    assert not journal.sent.exists() and lost_requests(tmp_path, "a") == []


@pytest.mark.parametrize(
    ("reply", "lost"),
    [
        (Reply(status=529), 0),
        (Reply(status=429, headers={"retry-after": "1"}), 0),
        (Reply(fault="html"), 0),
        (Reply(fault="cut"), 1),
        (Reply(fault="reset"), 1),
        (Reply(fault="truncated"), 1),
        (Reply(fault="error"), 1),
    ],
)
def test_what_may_have_been_paid_for_is_told(server, tmp_path, reply, lost) -> None:
    server.script(reply)
    assert ask(tmp_path, "a", 1) == "hello"
    assert len(server.requests) == 2
    assert [sent.worst_usd for sent in lost_requests(tmp_path, "a")] == [WORST] * lost
    assert not list(tmp_path.rglob("*.sent.jsonl"))


# Answers that were cut


def test_an_answer_that_was_cut_is_asked_again_with_more_room(server, tmp_path) -> None:
    server.script(Reply(text="ha", stop="max_output_tokens"), Reply(text="half", stop="max_output_tokens"))
    assert ask(tmp_path, "a", 1, more_room=2) == "hello"
    assert [request.body["max_output_tokens"] for request in server.requests] == [1000, 2000, 4000]
    answers = kept_answers(tmp_path, "a")
    assert sorted(answer.text for answer in answers) == ["ha", "half", "hello"]
    assert "asked again with more room" in Journal(tmp_path, "a", 1).read().warnings[0]


def test_no_more_room(server, tmp_path) -> None:
    """The last of those that were cut is the answer, and is kept once."""
    server.answer = Reply(text="half", stop="max_output_tokens")
    assert ask(tmp_path, "a", 1, more_room=1) == "half"
    assert [request.body["max_output_tokens"] for request in server.requests] == [1000, 2000]
    assert len(kept_answers(tmp_path, "a")) == 2


@pytest.mark.parametrize("bound", [None, 1.5])
def test_an_answer_that_was_cut_is_taken_where_more_room_is_refused(server, tmp_path, bound) -> None:
    """By the service, or by the budget."""
    server.script(Reply(text="half", stop="max_output_tokens", output_tokens=1000))
    server.answer = Reply(status=400, error={"error": {"message": "max_output_tokens: too large", "type": "x"}})
    told = ask(tmp_path, "a", 1, more_room=1, max_cost=bound and bound * WORST)
    assert told == "half"
    assert len(server.requests) == (1 if bound else 2)
    (answer,) = kept_answers(tmp_path, "a")
    assert "no more room for it" in answer.warnings[-1]


@pytest.mark.parametrize(
    ("reply", "taken"),
    [
        (
            Reply(
                fault="error",
                error={"type": "error", "sequence_number": 1, "message": "too long", "code": "context_length_exceeded"},
            ),
            True,
        ),
        (
            Reply(
                fault="error",
                error={"type": "error", "sequence_number": 1, "message": "who?", "code": "authentication_error"},
            ),
            False,
        ),
        (Reply(status=400, error={"error": {"message": "Your credit balance is too low", "type": "x"}}), False),
        (Reply(status=403), False),
    ],
    ids=["context", "key in a stream", "credit", "key"],
)
def test_only_a_refused_request_makes_a_cut_answer_final(server, tmp_path, reply, taken) -> None:
    """With credit, or the right key, it is asked again with more room."""
    server.script(Reply(text="half", stop="max_output_tokens"), reply)
    told = ask(tmp_path, "a", 1, more_room=1)
    assert told == "half" if taken else told.startswith("UserError")
    assert ask(tmp_path, "a", 1, more_room=1) == ("half" if taken else "hello")


def test_a_process_that_was_killed_goes_on_with_more_room(server, tmp_path) -> None:
    server.script(Reply(text="half", stop="max_output_tokens"), Reply(fault="silent"))
    process = FORK.Process(target=ask, args=(tmp_path, "a", 1), kwargs={"more_room": 1})
    process.start()
    wait_for(lambda: len(server.requests) == 2)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert ask(tmp_path, "a", 1, more_room=1) == "hello"
    assert [request.body["max_output_tokens"] for request in server.requests] == [1000, 2000, 2000]
    assert sorted(answer.text for answer in kept_answers(tmp_path, "a")) == ["half", "hello"]


def test_an_answer_that_was_cut_and_kept_is_counted_once(server, tmp_path) -> None:
    journal = Journal(tmp_path, "a", 1)
    server.answer = Reply(text="half", stop="max_output_tokens", output_tokens=1000)
    assert ask(tmp_path, "a", 1) == "half"
    paid = Ledger(journal, "openai", worst_usd)._paid(journal.folder)
    assert paid > 0
    answer = journal.read()
    journal._keep(answer, journal._beside(answer.ended, ".cut.json"))
    assert Ledger(journal, "openai", worst_usd)._paid(journal.folder) == paid
    assert journal.recover()
    assert len(kept_answers(tmp_path, "a")) == 1


def test_no_answer_gets_another_name_while_costs_are_counted(server, tmp_path) -> None:
    """Else one that is listed is gone when it is read."""
    server.script(Reply(text="half", stop="max_output_tokens"))
    with FileLock(Journal(tmp_path, "a", 1).counting):
        process = FORK.Process(target=ask, args=(tmp_path, "a", 1), kwargs={"more_room": 1})
        process.start()
        folder = tmp_path / "answers" / "a"
        wait_for((folder / "1.json").exists)
        process.join(0.3)
        assert process.is_alive() and len(list(folder.glob("1.*.cut.json"))) == 1
    process.join()
    assert not list(folder.glob("1.*.cut.json"))
    assert len(kept_answers(tmp_path, "a")) == 2


# Prices


def test_a_price_of_ones_own() -> None:
    price = Price(input=2.0, output=10.0, cache_read=0.5)
    usage = Usage(input_tokens=1_000_000, output_tokens=100_000, cache_read_tokens=400_000)
    assert cost_usd("openai", "unheard-of", usage, price=price) == pytest.approx(0.6 * 2 + 0.1 * 10 + 0.4 * 0.5)
    assert cost_usd("openai", "unheard-of", usage) is None
    assert worst_usd("openai", REQUEST, price=price) == pytest.approx(
        (prompt_tokens(REQUEST.prompt) * 2 + 10_000) / 1e6
    )


def test_a_prompt_that_is_not_written_to_the_cache_may_cost_more() -> None:
    price = Price(input=2.0, output=10.0, cache_write=0.5)
    plain = Usage(input_tokens=prompt_tokens(REQUEST.prompt), output_tokens=1000)
    assert worst_usd("openai", REQUEST, price=price) == pytest.approx(
        cost_usd("openai", REQUEST.model, plain, price=price)
    )


def test_a_bound_without_a_price_is_refused() -> None:
    keys = {"api_type": "openai", "model_name": "unheard-of", "max_cost": 1.0}
    with pytest.raises(UserError, match=r"max_cost: .*'unheard-of'.*price: \{input: USD, output: USD\}"):
        check_budget(load_config(keys))
    check_budget(load_config(keys | {"price": {"input": 1, "output": 2}}))
    several = keys | {"models": ["gpt-6-sol", "unheard-of"]}
    with pytest.raises(UserError, match=r"'unheard-of'.*price: \{unheard-of: \{input"):
        check_budget(load_config(several))
    check_budget(load_config(several | {"price": {"unheard-of": {"input": 1, "output": 2}}}))
    check_budget(load_config(keys | {"api_type": "replay", "replay_path": "answers"}))
    check_budget(load_config({"api_type": "openai", "model_name": "unheard-of"}))


def test_a_batch_costs_half() -> None:
    usage = Usage(input_tokens=1000, output_tokens=1000)
    for api_type, model in (("openai", "gpt-6-sol"), ("claude", "claude-opus-5-5")):
        whole = cost_usd(api_type, model, usage)
        assert cost_usd(api_type, model, usage, batch=True) == pytest.approx(whole / 2)


# Requests and tokens a minute


class Full(Exception):
    """It would have to wait."""


def full(_: float) -> None:
    raise Full


def _take(folder: Path, bounds: dict[str, int]) -> bool:
    limits = Limits("service", folder=folder, sleep=full, **bounds)
    try:
        limits.take(300)
    except Full:
        return False
    limits.done()
    return True


@pytest.mark.parametrize(
    ("bounds", "most"), [({"requests": 4}, 4), ({"tokens": 1000}, 3), ({"requests": 5, "tokens": 600}, 2)]
)
def test_processes_share_the_limits(tmp_path: Path, bounds, most) -> None:
    """12 requests of 300 tokens by 6 processes within a minute."""
    with FORK.Pool(6) as pool:
        assert sum(pool.starmap(_take, [(tmp_path, bounds)] * 12, chunksize=1)) == most


def _hold_until_all(folder: Path, barrier, seconds: float) -> bool:
    limits = Limits("service", in_flight=2, folder=folder, sleep=lambda _: os.sched_yield())
    limits.take(1)
    met = _meet(barrier, seconds)
    limits.done()
    return met


def _meet(barrier, seconds: float = 0.3) -> bool:
    """Whether all processes are here at once."""
    try:
        barrier.wait(seconds)
    except threading.BrokenBarrierError:
        return False
    return True


@pytest.mark.parametrize(("processes", "meet"), [(2, True), (3, False)])
def test_processes_share_the_places_in_flight(tmp_path: Path, processes, meet) -> None:
    barrier, seconds = FORK.Barrier(processes), 60.0 if meet else 0.3
    with ThreadPool(processes) as pool:
        forks = [
            FORK.Process(target=_exit_with, args=(_hold_until_all, tmp_path, barrier, seconds))
            for _ in range(processes)
        ]
        pool.map(lambda fork: (fork.start(), fork.join()), forks, chunksize=1)
    assert [bool(fork.exitcode) for fork in forks] == [meet] * processes


def _exit_with(function, *arguments) -> None:
    os._exit(function(*arguments))


def test_any_window_holds_the_limit(tmp_path: Path, monkeypatch) -> None:
    """A clock of its own: 30 requests at 7 in any minute, at the pace that the waits give; the service counts a request
    when it arrives, up to two seconds later."""
    now, sent = [1000.0], []
    monkeypatch.setattr(limits_module.time, "time", lambda: now[0])
    for number in range(30):
        limits = Limits("service", requests=7, folder=tmp_path, sleep=lambda seconds: now.append(now.pop() + seconds))
        limits.take(1)
        limits.done()
        sent.append(now[0] + 1.9 * (number % 2 == 0))
        now[0] += 3.7 * (number % 3)
    assert max(sum(at <= other < at + 60 for other in sent) for at in sent) == 7


def test_tokens_are_corrected_when_they_are_known(tmp_path: Path) -> None:
    for tokens, really in ((900, 100), (800, None)):
        limits = Limits("service", tokens=1000, folder=tmp_path, sleep=full)
        limits.take(tokens)
        limits.done(really)
    with pytest.raises(Full):
        Limits("service", tokens=1000, folder=tmp_path, sleep=full).take(200)


def test_a_request_that_is_larger_than_the_limit_goes_alone(tmp_path: Path) -> None:
    Limits("service", tokens=1000, folder=tmp_path, sleep=full).take(5000)


def test_a_killed_process_frees_its_place(tmp_path: Path) -> None:
    process = FORK.Process(target=_hold, args=(tmp_path,))
    process.start()
    wait_for((tmp_path / "held").exists)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    Limits("service", in_flight=1, folder=tmp_path, sleep=full).take(1)


def _hold(folder: Path) -> None:
    Limits("service", in_flight=1, folder=folder).take(1)
    (folder / "held").touch()
    signal.pause()


def test_costs_are_read_once(server, tmp_path) -> None:
    for step in (1, 2):
        ask(tmp_path, "a", step, max_cost=1.0)
    cache = tmp_path / "answers" / "a" / ".costs.json"
    ask(tmp_path, "a", 3, max_cost=1.0)
    assert set(json.loads(cache.read_text())) == {"1.json", "2.json"}
    assert read_model(tmp_path / "answers" / "a" / "1.json", Answer).cost_usd


def test_the_estimate_before_a_run(server, tmp_path) -> None:
    """Two of the three questions are left; the prompt of the answered one tells how long prompts are."""
    (tmp_path / "tasks.txt").write_text("rmsnorm, rmsnorm_h256\n")
    config = load_config(
        {
            "api_type": "openai",
            "model_name": REQUEST.model,
            "max_completion_tokens": 1000,
            "total_steps": 3,
            "tasks_path": str(tmp_path / "tasks.txt"),
            "dataset_root": str(REPOSITORY / "datasets" / "mini"),
            "save_path": str(tmp_path),
            "run": "run",
        }
    )
    (task,) = read_tasks(tmp_path / "tasks.txt", config.dataset)
    (before,) = estimate(config, [task])
    assert (before.steps, before.measured, before.like_usd) == (3, False, None)
    assert 3 * WORST < before.most_usd < 30 * WORST
    server.script(Reply(output_tokens=100))
    assert ask(config.results, task.name, 1) == "hello"
    write_text(config.results / task.name / "step_1" / "prompt.md", REQUEST.prompt)
    (after,) = estimate(config, [task])
    assert (after.steps, after.measured) == (2, True)
    assert after.most_usd == pytest.approx(2 * WORST, rel=0.01)
    assert after.like_usd == pytest.approx(after.most_usd / 10, rel=0.1)
    write_text(tmp_path / "config.yaml", config_yaml(config))
    command = [sys.executable, REPOSITORY / "scripts" / "estimate_cost.py", "--config", tmp_path / "config.yaml"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    assert re.search(rf"^rmsnorm_rmsnorm_h256 +2 +\d+ +{after.most_usd:.2f} +{after.like_usd:.2f}$", done.stdout, re.M)
