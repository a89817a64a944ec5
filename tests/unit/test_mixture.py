"""Models of several services in one run: whose a name is, and that each service has its own address, key and price."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import worker
import yaml
from snakernel.config import ApiType, Config, config_yaml, load_config, split_model
from snakernel.dataset import Task
from snakernel.errors import UserError
from snakernel.files import write_model, write_text
from snakernel.llm import providers
from snakernel.llm.asking import provider, request
from snakernel.llm.base import Answer, Request, Usage
from snakernel.llm.estimate import estimate_task
from snakernel.llm.journal import Journal, Sent
from snakernel.llm.prices import cost_usd, worst_usd
from snakernel.llm.providers import check_budget, check_services, worst_usd_of
from snakernel.llm.replay import Replay
from snakernel.search.trials import Trials
from snakernel.skipping import NotAsked

CLAUDE, GPT = "claude-opus-5-5", "gpt-6-sol"
TWO = {"models": [f"claude:{CLAUDE}", GPT], "max_completion_tokens": 1000}
BASES = ("ANTHROPIC_BASE_URL", "OPENAI_BASE_URL", "GEMINI_BASE_URL")
KEYS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "OPENAI_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two keys, and the services' own addresses."""
    for name in (*BASES, *KEYS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-test-0123456789")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-openai-test-0123456789")


# Names


@pytest.mark.parametrize(
    ("name", "service", "model"),
    [
        ("claude:claude-opus-4-6", "claude", "claude-opus-4-6"),
        ("anthropic:claude-opus-4-6", "claude", "claude-opus-4-6"),
        ("google:models/gemini-3.5-flash", "gemini", "models/gemini-3.5-flash"),
        ("openai:llama3:8b", "openai", "llama3:8b"),
        ("openai:claude:7b", "openai", "claude:7b"),
        ("llama3:8b", None, "llama3:8b"),
        ("ft:gpt-4.1:me::x", None, "ft:gpt-4.1:me::x"),
        ("openai/gpt-5", None, "openai/gpt-5"),
        ("claude", None, "claude"),
        ("Claude:x", None, "Claude:x"),
    ],
)
def test_a_name_is_split_at_known_services_only(name: str, service: str | None, model: str) -> None:
    assert split_model(name) == (service, model)
    config = load_config({"models": [name, "other"]})
    assert config.served(name) == (service or "openai", model)
    assert config.served("other") == ("openai", "other")


def test_every_service_of_a_name_can_be_asked() -> None:
    assert {*providers._ADDRESSES, "replay"} == set(ApiType.__args__)


def test_the_services_of_a_run() -> None:
    assert load_config({}).services == ["openai"]
    assert load_config(TWO).services == ["claude", "openai"]
    assert load_config({"models": ["claude:a", "claude:b"]}).services == ["claude"]
    # The model of model_name is api_type's, whatever its name is.
    assert load_config({"model_name": "claude:x"}).served("claude:x") == ("openai", "claude:x")


def test_replay_answers_for_all() -> None:
    """A mixture is replayed with its own configuration: nobody is paid, and the models keep their names."""
    config = load_config({**TWO, "api_type": "replay", "replay_path": "results/other"})
    assert config.services == ["replay"] and not config.asks_a_service
    assert config.served(f"claude:{CLAUDE}") == ("replay", CLAUDE)
    check_budget(load_config({**config.model_dump(), "max_cost": 1.0}))


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"models": ["replay:x", "y"]}, "models: 'replay:x': replay is no part of a mixture; api_type: replay answers"),
        ({"models": ["claude:", "y"]}, "models: 'claude:' must name a model"),
        ({"models": ["gpt-5", "openai:gpt-5"]}, "models: 'gpt-5' and 'openai:gpt-5' are the same model"),
        ({"models": ["claude:x", "anthropic:x"]}, "models: 'claude:x' and 'anthropic:x' are the same model"),
        (
            {"models": ["claude:x"], "api_base": "http://127.0.0.1:1"},
            "api_base: is where api_type openai is asked, and",
        ),
        (
            {"models": ["gemini:x", "y"], "llm_mode": "batch"},
            "llm_mode: batch is for api_type claude and openai, not for gemini",
        ),
    ],
)
def test_what_is_wrong_with_a_mixture_is_named(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config(keys)
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_two_services_may_have_a_model_of_one_name() -> None:
    config = load_config({"models": ["x", "gemini:x"], "llm_mode": "stream"})
    assert [config.served(name) for name in config.model_shares] == [("openai", "x"), ("gemini", "x")]


def test_names_are_written_and_read_as_yaml() -> None:
    config = load_config(yaml.safe_load("models: {claude:claude-opus-5-5: 2, gpt-6-sol: 1}"))
    assert config.models == {f"claude:{CLAUDE}": 2.0, GPT: 1.0}
    assert load_config(yaml.safe_load(config_yaml(config))) == config


# Before anything is spent


def test_all_keys_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config({"models": ["claude:a", "openai:b", "gemini:c"]})
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError) as caught:
        check_services(config)
    assert all(name in str(caught.value) for name in KEYS) and "\n" not in str(caught.value)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-openai-test-0123456789")
    with pytest.raises(UserError) as caught:
        check_services(config)
    assert "OPENAI" not in str(caught.value) and "GEMINI_API_KEY" in str(caught.value)
    # api_type is asked nothing here.
    check_services(load_config({"api_type": "claude", "models": ["openai:b"]}))


def test_a_bound_needs_the_prices_of_all() -> None:
    keys = {"max_cost": 1.0, "models": ["claude:own", "own", GPT, f"claude:{CLAUDE}"]}
    with pytest.raises(
        UserError, match=r"of model 'claude:own' and 'own' is not.*price: \{claude:own: \{input"
    ) as told:
        check_budget(load_config(keys))
    price = str(told.value).partition("set price: ")[2].partition(" per million")[0].replace("USD", "1")
    one = yaml.safe_load(price)
    check_budget(load_config({**keys, "price": one}))
    # OpenAI's price is not Claude's, though the model has the same name.
    with pytest.raises(UserError, match="of model 'claude:own' is not"):
        check_budget(load_config({**keys, "price": {"own": one["own"]}}))


def test_the_estimate_has_each_models_own_price(tmp_path: Path) -> None:
    keys = {**TWO, "save_path": str(tmp_path), "total_steps": 1, "max_completion_tokens": 10_000}
    task = Task("rmsnorm", "rmsnorm_h256")
    answers = tmp_path / "iterative_mlsys26-contest" / task.name / "step_1" / "prompt.md"
    write_text(answers, "x" * 2500)
    found = estimate_task(load_config(keys), task, 1000)
    request = Request(prompt="x" * 2500, model=CLAUDE, max_completion_tokens=10_000)
    dear = worst_usd("claude", request)
    assert dear > worst_usd("openai", request.model_copy(update={"model": GPT}))
    assert found.most_usd == pytest.approx(dear)
    usage = Usage(input_tokens=1000, output_tokens=1000)
    both = [cost_usd("claude", CLAUDE, usage), cost_usd("openai", GPT, usage)]
    assert found.like_usd == pytest.approx(sum(both) / 2)
    assert estimate_task(load_config({**keys, "models": ["gemini:unheard-of", GPT]}), task, 1).most_usd is None


# Who is asked


def asked(folder: Path, config: Config, model: str | None, role: str = "proposer") -> tuple[Request, Any]:
    """The request and the provider of a step whose prompt is for a model."""
    prompt = folder / "task" / "step_1" / "prompt.md"
    write_text(prompt, "write")
    write_text(prompt.with_suffix(".json"), json.dumps({"role": role, "model": model, "base": None}))
    write_text(folder / "task" / "definition.json", json.dumps({"name": "d"}))
    return request(config, prompt), provider(config, Journal(folder, "task", 1), folder / "task", prompt)


def test_each_is_asked_at_its_own_address_with_its_own_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config({**TWO, "api_base": "http://127.0.0.1:5/v1", "requests_in_flight": 1})
    sent, service = asked(tmp_path, config, f"claude:{CLAUDE}")
    assert (sent.model, sent.question.model) == (CLAUDE, f"claude:{CLAUDE}")
    assert (service.api_type, service.base_url) == ("claude", "https://api.anthropic.com")
    assert service.api_key == "sk-ant-test-0123456789"
    other, second = asked(tmp_path, config, GPT)
    assert (other.model, other.question.model) == (GPT, GPT)
    assert (second.api_type, second.base_url) == ("openai", "http://127.0.0.1:5/v1")
    assert second.api_key == "sk-openai-test-0123456789"
    # Bounds are of what one address is asked.
    assert service.gate._limits._path != second.gate._limits._path
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:6/v1")
    assert asked(tmp_path, config, f"claude:{CLAUDE}")[1].base_url == "http://127.0.0.1:6"


def test_what_asks_nobody_is_not_split(tmp_path: Path) -> None:
    replayed = load_config({**TWO, "api_type": "replay", "replay_path": str(tmp_path)})
    sent, answers = asked(tmp_path, replayed, f"claude:{CLAUDE}")
    assert isinstance(answers, Replay) and sent.model == CLAUDE
    sent, trial = asked(tmp_path, load_config(TWO), "optuna 4.5.0", role="sweep")
    assert isinstance(trial, Trials) and sent.model == "optuna 4.5.0"


def test_a_price_of_ones_own_is_that_of_the_name(tmp_path: Path) -> None:
    price = {"claude:own": {"input": 0, "output": 100}, "own": {"input": 0, "output": 1}}
    config = load_config({"models": list(price), "price": price, "max_completion_tokens": 1000})
    for name, usd in (("claude:own", 0.1), ("own", 0.001)):
        sent, service = asked(tmp_path, config, name)
        usage = {"usage": {"input_tokens": 5, "output_tokens": 1000}, "object": "response"}
        assert service._cost(sent, "own-2", usage) == pytest.approx(usd)
        assert service.gate._worst_usd(service.api_type, sent) == pytest.approx(usd)
    # A single model may be called like one of a mixture; and a gateway's price is found by the gateway's name.
    alone = load_config({"model_name": "claude:own", "price": price})
    assert alone.prices_of("openai")["claude:own"].output == 100
    assert alone.prices_of("claude")["own"].output == 100
    assert load_config({"price": price["own"]}).prices_of("gemini").output == 1


def test_the_worker_has_the_sdks_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, before the first fork that asks; a run that asks nobody needs none."""
    loaded: list[str] = []
    monkeypatch.setattr(providers, "load_sdk", loaded.append)
    path = tmp_path / "config.yaml"
    write_text(path, config_yaml(load_config({"models": ["claude:a", "b", "claude:c"]})))
    for script in ("evaluate", "propose", "propose"):
        worker.prepare({"script": script, "config": str(path)})
    assert loaded == ["claude", "openai"]
    replayed = tmp_path / "replayed.yaml"
    write_text(replayed, config_yaml(load_config({**TWO, "api_type": "replay", "replay_path": "answers"})))
    worker.prepare({"script": "propose", "config": str(replayed)})
    assert loaded == ["claude", "openai"]


# The ledger


def test_an_answer_without_a_cost_counts_at_the_price_of_who_gave_it(tmp_path: Path) -> None:
    """Not of who is asked now, for whom the model's name means nothing, or something else."""
    shared = "shared-name"
    price = {f"claude:{shared}": {"input": 0, "output": 1000}, shared: {"input": 0, "output": 1}}
    config = load_config({"models": list(price), "price": price, "max_completion_tokens": 1000, "max_cost": 1.5})
    past = Request(prompt="write", model=shared, max_completion_tokens=1000)
    when = "2026-01-01T00:00:00.000+00:00"
    answer = Answer(
        api_type="claude", request=past, text="x", model=shared, stop_reason="end_turn", started=when, ended=when
    )
    write_model(Journal(tmp_path, "other", 1).path, answer)
    sent, service = asked(tmp_path, config, shared)
    assert service.api_type == "openai"
    service.gate.send(sent)  # 1 + 0.001 of 1.5
    service.gate.forget()
    assert service.gate._spent(tmp_path / "answers" / "other").paid == pytest.approx(1.0)
    with pytest.raises(NotAsked, match="budget spent: 1.0000 USD"):
        dear, claude = asked(tmp_path, config, f"claude:{shared}")
        claude.gate.send(dear)
    # What is counted is no cost that is known: another price counts from then on.
    cheaper = {**price, f"claude:{shared}": {"input": 0, "output": 100}}
    again = load_config({**config.model_dump(), "price": cheaper})
    assert asked(tmp_path, again, shared)[1].gate._spent(tmp_path / "answers" / "other").paid == pytest.approx(0.1)
    # The same for a request that was lost.
    lost = Sent(
        started=when, model=shared, api_type="claude", input_tokens=1, max_completion_tokens=1000, worst_usd=None
    )
    Journal(tmp_path, "other", 2)._add_lost(lost)
    assert service.gate._spent(tmp_path / "answers" / "other").lost == pytest.approx(1.0)
    # One of a run that did not write the service down is api_type's.
    assert worst_usd_of(config, None, past) == pytest.approx(0.001)


def test_a_request_says_whose_it_is(tmp_path: Path) -> None:
    sent, service = asked(tmp_path, load_config(TWO), f"claude:{CLAUDE}")
    service.gate.journal.folder.mkdir(parents=True, exist_ok=True)
    service.gate.send(sent)
    told = Sent.model_validate_json(service.gate.journal.sent.read_text())
    assert (told.api_type, told.model, told.worst_usd) == ("claude", CLAUDE, worst_usd("claude", sent))
