"""The providers, through the real SDKs, against a server on loopback that fails as told."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import openai
import pytest
from llm_server import LLMServer, Reply
from snakernel.errors import UserError
from snakernel.llm import retry
from snakernel.llm.base import USER_PART, Answer, Request, Usage
from snakernel.llm.prices import cost_usd
from snakernel.llm.providers import check_credentials, create_provider

SCRIPTS = Path(__file__).parents[2] / "scripts"
VARIABLES = ("API_KEY", "AUTH_TOKEN", "BASE_URL", "CUSTOM_HEADERS", "ORG_ID", "PROJECT_ID", "ADMIN_KEY")


@dataclass(frozen=True)
class Case:
    """One protocol of one service, with a model that is on the price list."""

    api_type: str
    protocol: str
    model: str
    name: str
    cut: str
    """The protocol's word for an answer that met its limit."""

    def __str__(self) -> str:
        return f"{self.api_type}-{self.protocol}"


CLAUDE = Case("claude", "messages", "claude-opus-5-5", "Claude", "max_tokens")
RESPONSES = Case("openai", "responses", "gpt-6-sol", "OpenAI", "max_output_tokens")
CHAT = Case("openai", "chat", "gpt-6-sol", "OpenAI", "length")
GEMINI = Case("gemini", "chat", "gemini-3.5-flash", "Gemini", "length")
CASES = (CLAUDE, RESPONSES, CHAT, GEMINI)
every_protocol = pytest.mark.parametrize("case", CASES, ids=str)


@pytest.fixture(scope="module")
def shared_server():
    with LLMServer() as server:
        yield server


@pytest.fixture
def server(shared_server, monkeypatch, tmp_path):
    shared_server.reset()
    for name in ("ANTHROPIC", "OPENAI", "GEMINI", "GOOGLE"):
        for variable in VARIABLES:
            monkeypatch.delenv(f"{name}_{variable}", raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in shared_server.environment().items():
        monkeypatch.setenv(name, value)
    # No certificates to read for each client: half the time.
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    monkeypatch.setattr(retry, "_refused_in_this_process", {})
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("a test slept"))
    return shared_server


@pytest.fixture
def waits():
    """Seconds of the waits between requests, none of which is waited for."""
    return []


@pytest.fixture
def ask(server, waits, tmp_path):
    """Ask the service of a case one question."""

    def ask(
        case: Case, temperature: float | None = None, model: str | None = None, fields: dict | None = None, **options
    ) -> Answer:
        values = {"prompt": "write", "model": model or case.model, "temperature": temperature}
        request = Request(**{**values, "max_completion_tokens": 1000, **(fields or {})})
        if case is CHAT:
            # As on an address that was found to have Chat Completions only.
            host = server.url.removeprefix("http://")
            memory = options.setdefault("memory", tmp_path / "memory.json")
            known = json.loads(memory.read_text()) if memory.exists() else {}
            memory.write_text(json.dumps(known | {f"{host} {request.model} responses": "Not Found"}))
        return create_provider(api_type=case.api_type, sleep=waits.append, **options).ask(request)

    return ask


def refuse(ask, case: Case, **options) -> str:
    """The message of the question that fails: one sentence, that names service and model, and no key."""
    with pytest.raises(UserError) as raised:
        ask(case, **options)
    message = str(raised.value)
    assert "\n" not in message
    assert not re.search(r"[.!?]\s+[A-Z]", message), message
    assert case.name in message
    assert (options.get("model") or case.model) in message
    assert "0123456789" not in message, "the key"
    return message


# Answers


@every_protocol
def test_answer(server, ask, case):
    server.script(Reply(text="a kernel", thinking="first", model=f"{case.model}-0", headers={"x-request-id": "req_1"}))
    answer = ask(case)
    assert (answer.text, answer.thinking, answer.model) == ("a kernel", "first", f"{case.model}-0")
    assert (answer.api_type, answer.attempts, answer.waited_s, answer.warnings) == (case.api_type, 1, 0, [])
    assert answer.usage == Usage(input_tokens=11, output_tokens=7)
    assert answer.stop_reason == {"messages": "end_turn", "responses": "completed", "chat": "stop"}[case.protocol]
    assert datetime.fromisoformat(answer.started) <= datetime.fromisoformat(answer.ended)
    assert answer.raw["id"] and answer.raw["usage"] and "a kernel" not in json.dumps(answer.raw)
    assert [r.protocol for r in server.requests] == [case.protocol]
    assert server.answered == 1
    assert Answer.model_validate_json(answer.model_dump_json()) == answer


@every_protocol
def test_request(server, ask, case):
    ask(case, temperature=0.5)
    (received,) = server.requests
    limit = {"messages": "max_tokens", "responses": "max_output_tokens", "chat": "max_completion_tokens"}
    assert received.body[limit[case.protocol]] == 1000
    assert (received.body["temperature"], received.body["stream"], received.prompt) == (0.5, True, "write")
    key = server.environment()[f"{'ANTHROPIC' if case is CLAUDE else case.api_type.upper()}_API_KEY"]
    assert received.headers["authorization"] == f"Bearer {key}"


def test_what_is_posted_to_responses_is_what_the_sdks_own_method_posts(server, ask):
    """The provider posts by itself, as the method makes a schema of each kind of event."""
    values = {"prompt": f"you\n{USER_PART}\nwrite", "effort": "low"}
    ask(RESPONSES, temperature=0.5, fields=values)
    client = openai.OpenAI(max_retries=0)
    parameters = {"model": RESPONSES.model, "input": "write", "instructions": "you", "temperature": 0.5}
    parameters |= {"max_output_tokens": 1000, "reasoning": {"effort": "low"}, "store": False, "stream": True}
    client.responses.create(**parameters, timeout=600).close()
    ours, theirs = server.requests
    assert (ours.path, ours.body) == (theirs.path, theirs.body)
    assert ours.headers == theirs.headers | {"x-stainless-read-timeout": ours.headers["x-stainless-read-timeout"]}


def test_text_that_only_the_pieces_hold(server, ask):
    server.script(Reply(text="a whole kernel", repeats=False))
    assert ask(RESPONSES).text == "a whole kernel"


def test_request_id(server, ask):
    server.script(Reply(headers={"request-id": "req_a"}), Reply(headers={"x-request-id": "req_o"}), Reply())
    assert ask(CLAUDE).request_id == "req_a"
    assert ask(RESPONSES).request_id == "req_o"
    assert ask(CHAT).request_id == "chatcmpl-scripted"


@every_protocol
def test_usage_to_the_token(server, ask, case):
    server.script(Reply(input_tokens=1000, cache_read=300, cache_write=200, output_tokens=50, reasoning=20))
    answer = ask(case)
    assert answer.usage == Usage(
        input_tokens=1000, output_tokens=50, cache_read_tokens=300, cache_write_tokens=200, reasoning_tokens=20
    )
    # US dollars for a million tokens: input, read from the cache, written to it, output.
    new, read, written, out = {
        "claude-opus-5-5": (4, 0.2, 5, 20),
        "gpt-6-sol": (2, 0.2, 2.5, 10),
        "gemini-3.5-flash": (1.5, 0.15, 1.5, 9),
    }[case.model]
    assert answer.cost_usd == pytest.approx((500 * new + 300 * read + 200 * written + 50 * out) / 1e6)
    assert cost_usd(case.api_type, answer.model, answer.usage) == pytest.approx(answer.cost_usd)


@every_protocol
def test_usage_without_details(server, ask, case):
    server.script(Reply(input_tokens=1000, output_tokens=50, details=False))
    answer = ask(case)
    assert answer.usage == Usage(input_tokens=1000, output_tokens=50)
    assert answer.cost_usd > 0 and len(server.requests) == 1


def test_gemini_bills_thoughts_that_only_the_total_counts(server, ask):
    server.script(Reply(input_tokens=10, output_tokens=5, hidden=25))
    answer = ask(GEMINI)
    assert answer.usage == Usage(input_tokens=10, output_tokens=30, reasoning_tokens=25)
    assert answer.cost_usd == pytest.approx((10 * 1.5 + 30 * 9) / 1e6)


def test_unknown_price(server, ask):
    server.script(Reply(model="own-model"))
    assert ask(CLAUDE).cost_usd is None
    for response in ({}, {"usage": None}, {"usage": {}}, {"usage": {"input_tokens": "many", "output_tokens": 1}}):
        assert cost_usd("claude", "claude-opus-5-5", response) is None


def test_price_counts_tier_and_cache_lifetime():
    tokens = {"prompt_tokens": 1000, "completion_tokens": 0, "total_tokens": 1000}
    full = cost_usd("openai", "gpt-6-sol", {"usage": tokens})
    assert cost_usd("openai", "gpt-6-sol", {"usage": tokens, "service_tier": "flex"}) == pytest.approx(full / 2)
    usage = {"input_tokens": 0, "cache_creation_input_tokens": 100, "cache_read_input_tokens": 0, "output_tokens": 0}
    hour = usage | {"cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 100}}
    assert cost_usd("claude", "claude-opus-5-5", {"usage": usage}) == pytest.approx(100 * 5 / 1e6)
    assert cost_usd("claude", "claude-opus-5-5", {"usage": hour}) == pytest.approx(100 * 8 / 1e6)


@pytest.mark.parametrize("case", (RESPONSES, CHAT, GEMINI), ids=str)
def test_no_usage_is_told(server, ask, case):
    server.script(Reply(usage=False))
    answer = ask(case)
    assert (answer.text, answer.usage, answer.cost_usd) == ("hello", Usage(), None)
    assert "tokens" in answer.warnings[0]


@every_protocol
def test_refusal_is_an_answer(server, ask, case):
    server.script(Reply(text="", refusal="cyber"))
    answer = ask(case)
    assert (answer.stop_reason, len(server.requests)) == ("refusal", 1)
    assert "refused" in answer.warnings[0]
    assert case is not CLAUDE or "cyber" in answer.warnings[0]
    assert answer.text == ("" if case is CLAUDE else "cyber")


def test_refusal_by_policy_is_an_answer(server, ask):
    server.script(Reply(error={"code": "bio_policy", "message": "no"}))
    answer = ask(RESPONSES)
    assert (answer.stop_reason, answer.text, len(server.requests)) == ("refusal", "hello", 1)
    assert "bio_policy" in answer.warnings[0]


@every_protocol
def test_cut_answer_is_told(server, ask, case):
    server.script(Reply(stop=case.cut))
    answer = ask(case)
    assert (answer.stop_reason, answer.text) == (case.cut, "hello")
    assert case.cut in answer.warnings[0]


@pytest.mark.parametrize("case", (RESPONSES, CHAT, GEMINI), ids=str)
def test_content_filter_is_told(server, ask, case):
    stop = "content_filter: PROHIBITED_CONTENT" if case is GEMINI else "content_filter"
    server.script(Reply(stop=stop))
    answer = ask(case)
    assert answer.stop_reason == stop and "held" in answer.warnings[0]


@every_protocol
def test_halves_of_a_character(server, ask, case):
    """A lone half cannot be written as UTF-8: an answer that was paid for would be lost."""
    server.script(Reply(text="a\U0001f600b\ud83d", pieces=["a\ud83d", "\ude00b\ud83d"]))
    answer = ask(case)
    assert answer.text == "a\U0001f600b\ufffd"
    assert answer.model_dump_json()


# Faults that pass

PASSING = {
    **{f"status {status}": Reply(status=status) for status in (408, 409, 429, 500, 503, 529)},
    "status 502, html": Reply(status=502, error="<html>Bad gateway. Try again</html>"),
    **{
        fault: Reply(fault=fault)
        for fault in ("reset", "html", "json", "empty", "cut", "truncated", "malformed", "misshapen", "error")
    },
    "silent": Reply(fault="silent"),
    "stall": Reply(fault="stall"),
    "trickle": Reply(fault="trickle"),
}


@every_protocol
@pytest.mark.parametrize("fault", PASSING)
def test_passing_fault(server, ask, waits, case, fault):
    server.script(PASSING[fault], PASSING[fault], Reply(text="done"))
    limits = {"silent": {"read_timeout_s": 0.1}, "stall": {"read_timeout_s": 0.1}, "trickle": {"timeout_s": 0.15}}
    answer = ask(case, **limits.get(fault, {}))
    assert (answer.text, answer.attempts, len(server.requests), server.answered) == ("done", 3, 3, 1)
    assert 1 <= waits[0] < 2 <= waits[1] < 3
    assert answer.waited_s == pytest.approx(sum(waits), abs=0.001)
    assert answer.usage == Usage(input_tokens=11, output_tokens=7)


@every_protocol
@pytest.mark.parametrize(
    ("fault", "words"),
    {
        "status 529": "status 529",
        "status 502, html": "status 502",
        "html": "text/html",
        "cut": "",
        "truncated": "stop reason",
        "malformed": "malformed",
        "error": "Overloaded",
        "trickle": "within 0.05 s",
    }.items(),
)
def test_tries_used_up(server, ask, waits, case, fault, words):
    server.script(*[PASSING[fault]] * 5)
    message = refuse(ask, case, **({"timeout_s": 0.05} if fault == "trickle" else {}))
    assert words in message and "5 tries" in message
    assert (len(server.requests), server.answered, len(waits)) == (5, 0, 4)
    assert [int(wait) for wait in waits] == [1, 2, 4, 8]


@every_protocol
def test_nobody_there(ask, waits, case):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        message = refuse(ask, case, api_base=f"http://127.0.0.1:{free.getsockname()[1]}/v1")
    assert "refused" in message and "127.0.0.1" in message and len(waits) == 4


def test_response_that_failed(server, ask, waits):
    server.script(Reply(error={"code": "server_error", "message": "sorry"}), Reply())
    assert ask(RESPONSES).attempts == 2


def test_number_of_tries(server, ask, waits):
    server.script(Reply(status=500), Reply(status=500))
    assert "2 tries" in refuse(ask, CLAUDE, tries=2)
    assert len(server.requests) == 2


@every_protocol
@pytest.mark.parametrize(
    ("header", "low", "high"),
    [
        ({"retry-after": "7"}, 7, 7),
        ({"retry-after": "3600"}, 120, 120),
        ({"retry-after-ms": "9500"}, 9.5, 9.5),
        ({"retry-after": "in a while"}, 1, 2),
        ({"retry-after": "nan"}, 1, 2),
        ({"retry-after": "-5"}, 1, 2),
        ({"retry-after": "DATE"}, 28, 30),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_retry_after(server, ask, waits, case, header, low, high):
    in_half_a_minute = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    headers = {name: value.replace("DATE", in_half_a_minute) for name, value in header.items()}
    server.script(Reply(status=429, headers=headers), Reply())
    assert ask(case).attempts == 2
    assert low <= waits[0] <= high


def test_gemini_retry_info(server, ask, waits):
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "37s"}]
    error = {"code": 429, "message": "Quota exceeded.\nSlow down", "status": "RESOURCE_EXHAUSTED", "details": details}
    server.script(*[Reply(status=429, error=[{"error": error}])] * 5)
    assert "status 429, Quota exceeded)" in refuse(ask, GEMINI)
    assert waits == [37, 37, 37, 37]


@every_protocol
def test_service_says_whether_to_retry(server, ask, waits, case):
    server.script(Reply(status=400, headers={"x-should-retry": "true"}), Reply())
    assert ask(case).attempts == 2
    server.script(Reply(status=500, headers={"x-should-retry": "false"}))
    refuse(ask, case)
    assert len(server.requests) == 3


# Faults that stay


def error_of(case: Case, status: int, message: str, kind: str) -> Reply:
    """An HTTP error in the form of the case's service."""
    error = {"type": kind, "code": kind, "message": message}
    body = {"type": "error", "error": error} if case is CLAUDE else {"error": error}
    return Reply(status=status, error=[body] if case is GEMINI else body)


@every_protocol
@pytest.mark.parametrize(
    ("status", "words", "kind", "advice"),
    [
        (401, "Incorrect API key provided. See your account", "authentication_error", "_API_KEY"),
        (403, "No access", "permission_error", "_API_KEY"),
        (404, "The model `x` does not exist", "model_not_found", "model_name"),
        (400, "prompt is too long: 300000 tokens > 200000 maximum", "invalid_request_error", "shorten the prompt"),
        (400, "maximum context length is 8192 tokens", "context_length_exceeded", "shorten the prompt"),
        (413, "Request exceeds the size", "request_too_large", "shorten the prompt"),
        (429, "You exceeded your current quota, check your plan", "insufficient_quota", "add credit"),
        (400, "Your credit balance is too low", "invalid_request_error", "add credit"),
        (402, "Pay first", "billing_error", "add credit"),
        (400, "Something else", "invalid_request_error", "change the setting"),
    ],
)
def test_lasting_fault(server, ask, waits, case, status, words, kind, advice):
    server.script(error_of(case, status, words, kind))
    message = refuse(ask, case)
    assert f"status {status}" in message and words.partition(".")[0] in message and advice in message
    assert (len(server.requests), server.answered, waits) == (1, 0, [])


@every_protocol
def test_lasting_fault_in_a_stream(server, ask, waits, case):
    error = {"type": "invalid_request_error", "code": "invalid_prompt", "message": "This prompt is not taken"}
    data = {**error, "type": "error"} if case is RESPONSES else {"type": "error", "error": error}
    server.script(Reply(fault="error", error=data))
    assert "This prompt is not taken" in refuse(ask, case)
    assert (len(server.requests), waits) == (1, [])


@every_protocol
def test_lasting_fault_after_a_passing_one(server, ask, waits, case):
    server.script(Reply(status=529), Reply(status=401))
    assert "status 401" in refuse(ask, case)
    assert len(server.requests) == 2


@every_protocol
@pytest.mark.parametrize("error", ["gone", {"error": "gone"}, {"detail": "gone"}, [], {"error": {"message": None}}, 5])
def test_errors_of_any_form(server, ask, case, error):
    server.script(Reply(status=418, error=error))
    assert "status 418" in refuse(ask, case)


def test_mistake_of_ours_keeps_its_traceback(server, ask, monkeypatch):
    monkeypatch.setattr("snakernel.llm.claude._usage", lambda counted: counted.nothing)
    with pytest.raises(AttributeError):
        ask(CLAUDE)
    assert len(server.requests) == 1


# What a service does not take


@every_protocol
def test_temperature_is_dropped_and_remembered(server, ask, waits, monkeypatch, tmp_path, case):
    memory = tmp_path / "refused.json"
    server.refused["temperature"] = "Unsupported value: 'temperature' does not support 0.6 with this model."
    answer = ask(case, temperature=0.6, memory=memory)
    assert (answer.text, answer.attempts, len(server.requests), waits) == ("hello", 2, 2, [])
    assert "temperature 0.6 was not sent" in answer.warnings[0] and "Unsupported value" in answer.warnings[0]
    again = ask(case, temperature=0.6)  # by the process
    assert (again.attempts, again.warnings) == (1, answer.warnings)
    monkeypatch.setattr(retry, "_refused_in_this_process", {})
    later = ask(case, temperature=0.6, memory=memory)  # by the file
    assert (later.attempts, later.warnings) == (1, answer.warnings)
    assert ask(case, temperature=1.0, memory=memory).attempts == 2  # that value was not refused yet


def test_parameter_is_not_remembered_where_all_is_refused(server, ask, tmp_path):
    refusal = Reply(status=400, error={"error": {"message": "temperature: odd"}})
    server.script(refusal, refusal, Reply())
    refuse(ask, CLAUDE, temperature=0.6, memory=tmp_path / "refused.json")
    assert len(server.requests) == 2 and not (tmp_path / "refused.json").exists()
    assert ask(CLAUDE, temperature=0.6).warnings == []


def test_broken_memory_is_forgotten(server, ask, tmp_path):
    memory = tmp_path / "refused.json"
    memory.write_text('{"half')
    server.refused["temperature"] = "`temperature` is deprecated for this model."
    assert ask(CLAUDE, temperature=0.6, memory=memory).attempts == 2
    assert list(json.loads(memory.read_text()).values()) == ["`temperature` is deprecated for this model"]


def test_validation_error_of_a_server_of_ones_own(server, ask):
    detail = [{"loc": ["body", "temperature"], "msg": "Extra inputs", "input": {"max_completion_tokens": 1}}]
    server.script(Reply(status=422, error={"detail": detail}), Reply())
    assert ask(CHAT, temperature=0.6).attempts == 2
    assert "max_completion_tokens" in server.requests[1].body


def test_address_without_responses(server, ask, tmp_path, monkeypatch):
    memory = tmp_path / "refused.json"
    server.missing.add("responses")
    answer = ask(RESPONSES, memory=memory)
    assert (answer.text, answer.attempts, answer.warnings) == ("hello", 2, [])
    monkeypatch.setattr(retry, "_refused_in_this_process", {})
    assert ask(RESPONSES, memory=memory).attempts == 1
    assert [r.protocol for r in server.requests] == ["responses", "chat", "chat"]


def test_model_without_responses(server, ask):
    error = {"message": "This model is not supported in the v1/responses endpoint.", "type": "invalid_request_error"}
    server.script(Reply(status=400, error={"error": error}), Reply())
    ask(RESPONSES)
    assert [r.protocol for r in server.requests] == ["responses", "chat"]


@pytest.mark.parametrize("status", (404, 405, 501))
def test_address_without_either(server, ask, tmp_path, status):
    server.script(*[Reply(status=status, error="<html>no</html>")] * 6)
    assert f"status {status}" in refuse(ask, RESPONSES, memory=tmp_path / "refused.json")
    assert [r.protocol for r in server.requests[:2]] == ["responses", "chat"]
    assert not (tmp_path / "refused.json").exists()


@pytest.mark.parametrize("case", (CHAT, GEMINI), ids=str)
def test_older_names_of_chat(server, ask, case):
    server.refused["max_completion_tokens"] = "Unrecognized request argument supplied: max_completion_tokens"
    server.refused["stream_options"] = "stream_options is not allowed"
    answer = ask(case)
    assert (answer.text, answer.attempts, answer.usage) == ("hello", 3, Usage())
    assert server.requests[-1].body["max_tokens"] == 1000
    assert ask(case).attempts == 1


THOUGHT = {"thinking": "adaptive", "effort": "high"}


@every_protocol
def test_a_prompt_in_two_parts(server, ask, case):
    """What does not change from step to step is the system's, and Claude is told to keep it in its cache."""
    prompt = "the operator\n\n<!-- user -->\n\nwrite"
    assert ask(case, fields={"prompt": prompt}).request.prompt == prompt
    (received,) = server.requests
    assert received.prompt == "write"
    cached = [{"type": "text", "text": "the operator", "cache_control": {"type": "ephemeral"}}]
    parts = {"messages": received.body.get("system"), "responses": received.body.get("instructions")}
    if case.protocol == "chat":
        assert received.body["messages"][0] == {"role": "system", "content": "the operator"}
    else:
        assert parts[case.protocol] == (cached if case is CLAUDE else "the operator")


@every_protocol
def test_how_much_a_model_is_to_think(server, ask, case):
    ask(case, fields=THOUGHT)
    body = server.requests[0].body
    if case is CLAUDE:
        assert (body["thinking"], body["output_config"]) == ({"type": "adaptive"}, {"effort": "high"})
    elif case is RESPONSES:
        assert body["reasoning"] == {"effort": "high"}
    else:
        assert body["reasoning_effort"] == "high"
    if case is CLAUDE:
        ask(case, fields={"thinking": 2048})
        assert server.requests[1].body["thinking"] == {"type": "enabled", "budget_tokens": 2048}


@every_protocol
def test_thinking_that_is_refused_is_dropped_with_a_warning(server, ask, waits, case):
    for name in ("output_config", "reasoning", "reasoning_effort"):
        server.refused[name] = f"{name.replace('config', 'config.effort')}: effort is not supported by this model"
    server.refused["thinking"] = "thinking.type: adaptive thinking is not supported"
    answer = ask(case, fields=THOUGHT)
    assert (answer.text, waits) == ("hello", [])
    assert len(answer.warnings) == (2 if case is CLAUDE else 1)
    assert "effort high was not sent" in answer.warnings[-1]
    asked = len(server.requests)
    ask(case, fields=THOUGHT)
    assert len(server.requests) == asked + 1, "it is remembered"


# Keys and addresses


@every_protocol
def test_key_is_never_shown(server, ask, caplog, tmp_path, monkeypatch, case):
    key = "unlike-any-other-0123456789"
    monkeypatch.setenv(f"{'ANTHROPIC' if case is CLAUDE else case.api_type.upper()}_API_KEY", key)
    memory = tmp_path / "refused.json"
    server.script(
        error_of(case, 400, f"temperature is not for {key}", "invalid_request_error"),
        error_of(case, 500, f"{key} is overloaded", "api_error"),
        Reply(),
        error_of(case, 401, f"bad key {key} or sk-abcd****wxyz", "authentication_error"),
    )
    answer = ask(case, temperature=0.6, memory=memory)
    message = refuse(ask, case)
    shown = message + answer.model_dump_json() + memory.read_text() + caplog.text
    assert "***" in message and key not in shown and "wxyz" not in shown
    assert "is overloaded" in caplog.text and "temperature is not for ***" in shown


@pytest.mark.parametrize(
    ("api_type", "variables"),
    [
        ("claude", ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")),
        ("anthropic", ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")),
        ("openai", ("OPENAI_API_KEY",)),
        ("gemini", ("GEMINI_API_KEY", "GOOGLE_API_KEY")),
        ("google", ("GEMINI_API_KEY", "GOOGLE_API_KEY")),
    ],
)
def test_credentials(server, monkeypatch, api_type, variables):
    monkeypatch.delenv("OPENAI_BASE_URL")
    monkeypatch.delenv("GEMINI_BASE_URL")
    monkeypatch.delenv(variables[0])
    for act in (lambda: check_credentials(api_type), lambda: create_provider(api_type=api_type)):
        with pytest.raises(UserError) as raised:
            act()
        assert all(name in str(raised.value) for name in variables) and "\n" not in str(raised.value)
    for name in variables:
        monkeypatch.setenv(name, "sk-other-0123456789\n")
        check_credentials(api_type)
        monkeypatch.setenv(name, "\u201csk-other-0123456789\u201d")
        with pytest.raises(UserError, match=name) as raised:
            check_credentials(api_type)
        assert "0123456789" not in str(raised.value)
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("case", "name"),
    [(CLAUDE, "ANTHROPIC_AUTH_TOKEN"), (GEMINI, "GOOGLE_API_KEY"), (RESPONSES, "OPENAI_API_KEY")],
    ids=str,
)
def test_other_key_out_of_a_file(server, ask, monkeypatch, case, name):
    for other in ("ANTHROPIC_API_KEY", "GEMINI_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(other)
    monkeypatch.setenv(name, "sk-other-0123456789\n")
    ask(case)
    assert server.requests[0].headers["authorization"] == "Bearer sk-other-0123456789"
    assert "x-api-key" not in server.requests[0].headers


def test_server_of_ones_own_needs_no_key(server, ask, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    ask(RESPONSES)
    monkeypatch.delenv("OPENAI_BASE_URL")
    ask(RESPONSES, api_base=f"{server.url}/v1")
    assert [r.headers["authorization"] for r in server.requests] == ["Bearer none"] * 2
    with pytest.raises(UserError, match="OPENAI_API_KEY is not set"):
        check_credentials("openai", "https://api.openai.com/v1/")


def test_api_base_comes_before_the_environment(server, ask, monkeypatch):
    for name in ("ANTHROPIC_BASE_URL", "OPENAI_BASE_URL", "GEMINI_BASE_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/v1")
    for case in (CLAUDE, RESPONSES, GEMINI):
        ask(case, api_base=f"{server.url}/v1/")
    assert [r.path for r in server.requests] == ["/v1/messages", "/v1/responses", "/v1/chat/completions"]


@pytest.mark.parametrize("address", ["localhost:8000", "ftp://host/v1", "http://", "http://[::1", "http://host:port"])
def test_bad_address(server, monkeypatch, address):
    with pytest.raises(UserError, match="^api_base: .*http://"):
        create_provider(api_type="openai", api_base=address)
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    with pytest.raises(UserError, match="^OPENAI_BASE_URL: "):
        check_credentials("openai")


def test_unknown_api_type(server):
    with pytest.raises(UserError, match="api_type: 'mistral' .*claude, openai, gemini, anthropic, google"):
        create_provider(api_type="mistral")


def test_google_is_not_told_what_is_meant_for_openai(server, ask, monkeypatch):
    monkeypatch.setenv("OPENAI_ORG_ID", "org-mine")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-mine")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Gateway: for-openai\nAuthorization: Bearer for-openai")
    ask(GEMINI)
    sent = server.requests[0].headers
    assert sent["authorization"] == f"Bearer {server.environment()['GEMINI_API_KEY']}"
    assert not any("mine" in value or "for-openai" in value for value in sent.values())


def test_from_another_process(server):
    """Nothing heavy is loaded until a question is asked; the server is steered and counts over HTTP."""
    script = json.dumps([{"status": 529}, {"text": "from afar"}]).encode()
    urllib.request.urlopen(urllib.request.Request(f"{server.url}/_server/script", script, method="POST")).close()
    program = """if True:
        import sys
        from snakernel.llm.base import Request
        from snakernel.llm.providers import check_credentials, create_provider
        for api_type in ("claude", "openai", "gemini"):
            check_credentials(api_type)
            provider = create_provider(api_type=api_type, sleep=lambda s: None)
        assert not {"anthropic", "openai", "httpx2", "genai_prices"} & set(sys.modules), "loaded too early"
        print(provider.ask(Request(prompt="p", model="m", max_completion_tokens=9)).text)
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=SCRIPTS)
    assert done.stdout == "from afar\n", done.stderr
    with urllib.request.urlopen(f"{server.url}/_server") as response:
        assert json.load(response) == {"requests": 2, "answered": 1, "left": 0, "max_in_flight": 1}


def test_server_answers_without_a_stream_too(server):
    """Not the providers' way, but the SDKs must read it: other tests rely on the server."""
    import anthropic
    import openai

    server.answer = lambda received: Reply(text=received.prompt.upper())
    try:
        messages = [{"role": "user", "content": "hi"}]
        message = anthropic.Anthropic(max_retries=0).messages.create(model="m", max_tokens=9, messages=messages)
        client = openai.OpenAI(max_retries=0)
        chat = client.chat.completions.create(model="m", messages=messages)
        response = client.responses.create(model="m", input="hi")
        assert message.content[0].text == chat.choices[0].message.content == response.output_text == "HI"
        assert message.usage.input_tokens == chat.usage.prompt_tokens == response.usage.input_tokens == 11
        assert server.counts() == {"requests": 3, "answered": 3, "left": 0, "max_in_flight": 1}
        server.script(Reply(fault="malformed"))
        with pytest.raises(json.JSONDecodeError):
            client.responses.create(model="m", input="hi")
    finally:
        server.answer = Reply()
