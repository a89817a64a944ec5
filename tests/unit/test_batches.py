"""Questions in batches: half the price, and a killed run collects what it has sent. Real SDKs, a loopback server."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from functools import partial
from pathlib import Path

import pytest
from evaluating import wait_for
from llm_server import LLMServer, Reply
from snakernel.config import load_config
from snakernel.errors import UserError
from snakernel.files import read_model, write_text
from snakernel.llm import asking, retry
from snakernel.llm.base import Answer, Request, Usage
from snakernel.llm.journal import Journal, kept_answers, lost_requests
from snakernel.llm.ledger import Ledger
from snakernel.llm.prices import cost_usd, worst_usd
from snakernel.llm.providers import create_provider
from snakernel.llm.replay import Replay
from snakernel.skipping import NotAsked

MODELS = {"claude": "claude-opus-5-5", "openai": "gpt-6-sol"}
PROMPT = "the operator\n\n<!-- user -->\n\nwrite"
both = pytest.mark.parametrize("api_type", MODELS)


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory):
    with LLMServer() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment().items():
            patch.setenv(name, value)
        patch.setenv("SSL_CERT_DIR", str(tmp_path_factory.mktemp("none")))
        patch.delenv("SSL_CERT_FILE", raising=False)
        yield server


@pytest.fixture
def server(shared_server, monkeypatch):
    shared_server.reset()
    shared_server.answer = Reply()
    monkeypatch.setattr(retry, "_refused_in_this_process", {})
    return shared_server


def ask(results: Path, api_type: str, *, sleep=lambda _: None, batch=True, step=1, prompt=PROMPT, **fields) -> Answer:
    """Ask a step of task a as propose does."""
    journal = Journal(results, "a", step)
    bounds = {key: fields.pop(key) for key in ("max_cost",) if key in fields}

    def provider():
        service = create_provider(api_type=api_type, batch=batch, poll_s=0.01, sleep=sleep)
        service.gate = Ledger(journal, api_type, partial(worst_usd, batch=batch), **bounds)
        return service

    request = Request(prompt=prompt, model=MODELS[api_type], max_completion_tokens=1000, **fields)
    return journal.answer(lambda: request, provider)[0]


@both
def test_an_answer_costs_half(server, tmp_path, api_type) -> None:
    server.answer = Reply(text="a kernel", thinking="first", input_tokens=1000, output_tokens=500)
    server.polls = 3
    waits: list[float] = []
    answer = ask(tmp_path, api_type, sleep=waits.append)
    assert (answer.text, answer.thinking, waits) == ("a kernel", "first", [0.01] * 3)
    assert answer.usage == Usage(input_tokens=1000, output_tokens=500)
    assert answer.cost_usd == pytest.approx(cost_usd(api_type, answer.model, answer.usage) / 2)
    assert answer.batch_id and len(server.requests) == 1
    assert Journal(tmp_path, "a", 1).read() == answer
    assert not list(tmp_path.rglob("*.sent.jsonl"))
    assert server.requests[0].body[{"claude": "max_tokens", "openai": "max_output_tokens"}[api_type]] == 1000


@both
def test_a_parameter_that_is_refused_is_left_out_of_the_next_batch(server, tmp_path, api_type) -> None:
    server.refused["temperature"] = "`temperature` is deprecated for this model."
    answer = ask(tmp_path, api_type, temperature=0.5)
    assert answer.text == "hello" and "temperature 0.5 was not sent" in answer.warnings[0]
    assert [("temperature" in request.body) for request in server.requests] == [True, False]
    assert lost_requests(tmp_path, "a") == []


@both
@pytest.mark.parametrize("reply", [Reply(fault="cut"), Reply(status=529), Reply(status=500)], ids=str)
def test_a_batch_that_comes_to_nothing_is_made_again(server, tmp_path, api_type, reply) -> None:
    """It expired, or the service could not answer."""
    server.script(reply)
    assert ask(tmp_path, api_type).text == "hello"
    assert len(server.requests) == 2
    assert lost_requests(tmp_path, "a") == []


@both
def test_what_is_wrong_with_a_request_is_told(server, tmp_path, api_type) -> None:
    server.answer = Reply(status=400)
    with pytest.raises(UserError, match=r"refused the request .*scripted 400"):
        ask(tmp_path, api_type)
    assert len(server.requests) == 1
    assert not list(tmp_path.rglob("*.sent.jsonl"))


def _never(_: float) -> None:
    signal.pause()


@both
def test_a_killed_process_leaves_its_batch_to_the_next(server, tmp_path, api_type) -> None:
    """Also to one that would not ask in batches, and with a prompt that was edited meanwhile."""
    server.polls = 2
    process = multiprocessing.get_context("fork").Process(
        target=ask, args=(tmp_path, api_type), kwargs={"sleep": _never}
    )
    process.start()
    sent = tmp_path / "answers" / "a" / "1.sent.jsonl"
    wait_for(lambda: sent.exists() and '"batch_id":"' in sent.read_text())
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    journal = Journal(tmp_path, "a", 1)
    assert journal.asked().prompt == PROMPT
    with pytest.raises(NotAsked, match="budget spent: 0.0000 USD and perhaps"):
        ask(tmp_path, api_type, step=2, max_cost=json.loads(sent.read_text())["worst_usd"] * 1.5)
    answer = ask(tmp_path, api_type, batch=False, prompt="edited")
    assert (answer.text, answer.request.prompt, len(server.requests)) == ("hello", PROMPT, 1)
    assert answer.cost_usd == pytest.approx(cost_usd(api_type, answer.model, answer.usage) / 2)
    assert lost_requests(tmp_path, "a") == [] and not sent.exists()
    assert len(kept_answers(tmp_path, "a")) == 1


@both
def test_a_service_that_is_away_while_it_works_on_a_batch(server, tmp_path, api_type, monkeypatch) -> None:
    """The batch stays what it is, and the next run collects it."""
    server.polls = 1

    def gone(_: float) -> None:
        for name in ("ANTHROPIC_BASE_URL", "OPENAI_BASE_URL"):
            monkeypatch.setenv(name, "http://127.0.0.1:9/v1")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask(tmp_path, api_type, sleep=gone)
    with pytest.raises(UserError, match=r"did not answer .* batch batch_\d+ will be asked for again by the next run"):
        ask(tmp_path, api_type)
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    assert ask(tmp_path, api_type).text == "hello"
    assert len(server.requests) == 1
    assert lost_requests(tmp_path, "a") == []


@both
def test_a_batch_that_the_service_has_forgotten_is_lost(server, tmp_path, api_type) -> None:
    def forget(_: float) -> None:
        server.batches.clear()

    with pytest.raises(UserError, match="does not know batch"):
        ask(tmp_path, api_type, sleep=forget)
    assert len(lost_requests(tmp_path, "a")) == 1
    assert ask(tmp_path, api_type).text == "hello"


@pytest.mark.parametrize(
    ("api_type", "gone", "results", "told"),
    [
        ("claude", True, None, "are no longer kept"),
        ("claude", False, b"", "are no longer kept"),
        ("claude", False, b"<html>\n", "is malformed"),
        ("openai", False, b"<html>\n", "is malformed"),
        ("openai", False, b'{"response": {"status_code": 200, "body": []}}\n', "is malformed"),
    ],
)
def test_a_batch_whose_results_cannot_be_had_is_lost(server, tmp_path, api_type, gone, results, told) -> None:
    server.results_gone, server.results = gone, results
    with pytest.raises(UserError, match=told):
        ask(tmp_path, api_type)
    assert len(server.requests) == len(lost_requests(tmp_path, "a")) == 1
    server.results_gone, server.results = False, None
    assert ask(tmp_path, api_type).text == "hello"


def _interrupt(_: float) -> None:
    raise KeyboardInterrupt


def test_a_batch_of_another_service_is_not_passed_over(server, tmp_path) -> None:
    with pytest.raises(KeyboardInterrupt):
        ask(tmp_path, "claude", sleep=_interrupt)
    with pytest.raises(UserError, match=r"batch batch_1 .* is at claude 127.0.0.1, not at openai 127.0.0.1: set api"):
        ask(tmp_path, "openai")
    assert len(server.requests) == 1
    assert ask(tmp_path, "claude").text == "hello"
    assert lost_requests(tmp_path, "a") == []


def test_a_batch_that_did_not_bring_the_answer_is_lost(server, tmp_path) -> None:
    """The step was replayed meanwhile."""
    with pytest.raises(KeyboardInterrupt):
        ask(tmp_path, "claude", sleep=_interrupt)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "1.md").write_text("recorded")
    journal = Journal(tmp_path, "a", 1)
    request = Request(prompt=PROMPT, model="m", max_completion_tokens=1000)
    assert journal.answer(lambda: request, lambda: Replay(tmp_path, "a", "d", 1))[0].text == "recorded"
    (lost,) = lost_requests(tmp_path, "a")
    assert lost.batch_id == "batch_1" and lost.worst_usd > 0 and not journal.sent.exists()


def test_only_two_services_have_batches() -> None:
    with pytest.raises(UserError, match="llm_mode: batch is for api_type claude and openai, not for gemini"):
        load_config({"api_type": "gemini", "llm_mode": "batch"})


def test_batches_of_a_mixture_are_each_collected_where_they_are(server, tmp_path) -> None:
    """Also where the mixture has become another one meanwhile, that streams."""
    keys = {"save_path": str(tmp_path), "run": "run", "max_completion_tokens": 1000, "max_cost": 9.0}
    mixture = {api_type: f"{api_type}:{model}" for api_type, model in MODELS.items()}
    before = load_config({**keys, "models": list(mixture.values()), "llm_mode": "batch"})
    after = load_config({**keys, "models": ["claude:x", "openai:y"]})
    task = before.results / "a"
    for step, name in enumerate(mixture.values(), 1):
        prompt = task / f"step_{step}" / "prompt.md"
        write_text(prompt, PROMPT)
        write_text(prompt.with_suffix(".json"), json.dumps({"role": "proposer", "model": name}))
        journal = Journal(before.results, "a", step)
        service = asking.provider(before, journal, task, prompt)
        service._sleep = _interrupt
        with pytest.raises(KeyboardInterrupt):
            journal.answer(partial(asking.request, before, prompt), lambda service=service: service)
    for step, (api_type, model) in enumerate(MODELS.items(), 1):
        asking.ask_step(after, task, step)
        answer = read_model(task / f"step_{step}" / "response.json", Answer)
        assert (answer.api_type, answer.request.model, answer.text) == (api_type, model, "hello")
        assert answer.cost_usd == pytest.approx(cost_usd(api_type, answer.model, answer.usage) / 2)
    assert len(server.requests) == 2 and lost_requests(before.results, "a") == []
