"""Asking a service until it answers: which faults pass, how long to wait, what it does not take.

The SDKs' own retries are off: anthropic's would sleep through a Retry-After of any length, both retry where no quota is
left, and neither notices a stream that ended early.
"""

from __future__ import annotations

import email.utils
import json
import logging
import math
import os
import random
import re
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from snakernel.config import PriceOrPrices
from snakernel.errors import UserError
from snakernel.files import write_text
from snakernel.llm.base import Answer, Gate, Refused, Request
from snakernel.llm.prices import cost_usd, price_of

MAX_WAIT_S = 120.0
"""The longest wait between two requests, in seconds, whatever Retry-After says."""

CONNECT_TIMEOUT_S = 10.0

_NO_CREDIT = {"insufficient_quota", "billing_error", "billing_not_active", "billing_hard_limit_reached"}
"""Error codes that come with status 429 or 400 and mean that no money is left."""

_NO_KEY = {"authentication_error", "permission_error"}

_PERMANENT = (
    _NO_CREDIT
    | _NO_KEY
    | {
        "invalid_request_error",
        "not_found_error",
        "request_too_large",
        "invalid_prompt",
        "model_not_found",
        "context_length_exceeded",
        "data_residency_mismatch",
    }
)
"""Error codes that mean the same inside a stream, where the HTTP status is 200, as a status of 4xx."""

_MALFORMED = (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What the SDKs raise where what came is not JSON, not of the right shape or not in order."""

_TOO_LONG = re.compile(r"too long|too large|too many tokens|context|maximum|token limit", re.IGNORECASE)
_LOOKS_LIKE_A_KEY = re.compile(r"\b(?:sk-|AIza|AQ\.)[-\w*]{6,}")

_log = logging.getLogger("snakernel.llm")
_refused_in_this_process: dict[str, str] = {}


class Fault(Exception):
    """One request that was not answered."""

    def __init__(
        self,
        words: str,
        *,
        status: int | None = None,
        codes: Collection[str] = (),
        names: str = "",
        transient: bool = True,
        retry_after_s: float | None = None,
        billed: bool = True,
    ):
        """``words`` is the service's own message, or what happened: one phrase, no key in it.

        ``codes`` are the service's error codes; ``names`` is where its message may name a parameter. A ``transient``
        fault may pass when the same request is sent again, not before ``retry_after_s`` seconds where it says so.
        ``billed``: the service may have answered, and want to be paid for it.
        """
        self.words = phrase(words)
        super().__init__(self.words)
        self.status = status
        self.codes = set(codes)
        self.names = names
        self.transient = transient
        self.retry_after_s = retry_after_s
        self.billed = billed

    @classmethod
    def in_stream(cls, words: str, *codes: str) -> Fault:
        """An error that a service sent inside a stream, whose HTTP status says that all is well."""
        return cls(words, codes=codes, transient=not _PERMANENT.intersection(codes))


class Service(ABC):
    """What the providers that speak to a server have in common: retries, deadlines, parameters that are not taken.

    Args:
        api_key: sent with each request, and shown nowhere.
        base_url: the address of the API.
        timeout_s: seconds until one request must be answered completely.
        read_timeout_s: seconds of silence after which a request is given up.
        tries: requests that may fail before the question is given up.
        memory: a JSON file that keeps what services refused, so that other processes need not learn it again; deleting
            it is safe.
        price: the price of the model; without it, the price list's.
        batch: send questions in batches, of one each: they are cheaper, and need not be answered soon.
        poll_s: seconds between two looks at whether a batch is done.
        sleep: waits between two requests.

    ``gate`` is told of every request before and after it.
    """

    api_type: ClassVar[str]
    name: ClassVar[str]
    """The service as people call it."""
    keys: ClassVar[str]
    """The environment variables that hold its key."""

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str,
        timeout_s: float = 1800.0,
        read_timeout_s: float = 600.0,
        tries: int = 5,
        memory: Path | str | None = None,
        price: PriceOrPrices = None,
        batch: bool = False,
        poll_s: float = 30.0,
        sleep: Callable[[float], object] = time.sleep,
    ):
        self.gate = Gate()
        self.price = price
        self.batch, self.poll_s = batch, poll_s
        self.api_key = api_key
        self.base_url = base_url
        self.timeout_s = timeout_s
        self.read_timeout_s = min(read_timeout_s, timeout_s)
        self.tries = tries
        self._memory = Path(memory) if memory else None
        self._sleep = sleep

    def ask(self, request: Request) -> Answer:
        """Send one question and wait for the whole answer.

        Raises:
            UserError: asking again cannot help, or ``tries`` requests failed.
            Refused: the service does not take the request as it is.
            NotAsked: the gate does not let it pass.
            Unfinished: it is in a batch, of which nothing can be learned now.
        """
        pending = self.gate.pending()
        if pending is not None and pending.service not in ("", self._service):
            raise UserError(
                f"batch {pending.batch_id} may have the answer of this step; it is at {pending.service}, not at "
                f"{self._service}: set api_type, models and api_base back until it is collected, or give it up by "
                "moving the line of the step's sent.jsonl to its lost.jsonl in the journal"
            )
        if pending is not None and pending.request is not None:
            request = pending.request  # that is what will be answered
        self._client  # noqa: B018  (loading the SDK is not the service's time)
        refused = self._recall(request)
        known = set(refused)
        started, waited_s, sent, failed = _now(), 0.0, 0, 0
        while True:
            sent += 1
            batch_id = pending.batch_id if pending is not None else None
            pending = None
            if batch_id is None:
                self.gate.send(request)
            try:
                if batch_id or self.batch:
                    answer = self._through_batch(request, refused, batch_id)
                else:
                    answer = self._send(request, refused)
            except BaseException as error:
                fault = fault_of(error)
                if fault is None and self.gate.pending() is not None:
                    self.gate.leave()
                    raise
                if fault is not None and not fault.billed:
                    self.gate.forget()
                else:
                    self.gate.lose(str(fault or type(error).__name__))
                if fault is None:
                    raise
            else:
                self.gate.answered(answer)
                break
            refusal = next((x for x in self._optional(request) if x not in refused and self._is_refused(x, fault)), "")
            if refusal:
                refused[refusal] = fault.words
                continue
            failed += 1
            if not fault.transient or failed >= self.tries:
                raise (Refused if _is_refusal(fault) else UserError)(self._explain(fault, request, failed))
            wait_s = min(max(2 ** (failed - 1) + random.random(), fault.retry_after_s or 0.0), MAX_WAIT_S)
            _log.warning("%s: try %d of %d failed (%s), next in %.1f s", self.name, failed, self.tries, fault, wait_s)
            self._sleep(wait_s)
            waited_s += wait_s

        # Only now: a service that refuses everything has not refused a parameter.
        self._remember(request, {name: words for name, words in refused.items() if name not in known})
        warnings = [*answer.warnings]
        for name in ("temperature", "thinking", "effort"):
            if name in refused:
                warnings.append(
                    f"{name} {getattr(request, name)} was not sent: {self.name} refuses it for {request.model} "
                    f"({refused[name]})"
                )
        if answer.is_cut or answer.stop_reason == "pause_turn":
            warnings.append(f"the answer was cut ({answer.stop_reason})")
        return answer.model_copy(
            update={
                "started": started,
                "ended": _now(),
                "attempts": sent,
                "waited_s": round(waited_s, 3),
                "warnings": warnings,
            }
        )

    @cached_property
    @abstractmethod
    def _client(self) -> Any:
        """The SDK's client."""

    @abstractmethod
    def _send(self, request: Request, refused: Collection[str]) -> Answer:
        """Send one request, without what ``refused`` names, and return its complete answer.

        Raises:
            Fault: the answer is not complete; exceptions of the SDK are left to :func:`fault_of`.
        """

    def _through_batch(self, request: Request, refused: Collection[str], batch_id: str | None) -> Answer:
        """Put a request into a batch of its own, unless it is in one already, and wait for its answer.

        Raises:
            Fault: it was not answered.
            Unfinished: the service does not say what became of the batch.
        """
        if batch_id is None:
            batch_id = self._submit(request, refused)
            self.gate.submitted(request, batch_id, self._service)
        failed = 0
        while True:
            try:
                result = self._collect(request, batch_id)
                failed = 0
            except Exception as error:
                fault = fault_of(error)
                failed += 1
                if fault is None:
                    if not isinstance(error, _MALFORMED):
                        raise
                    if failed >= self.tries:
                        told = f"what it gives of batch {batch_id} is malformed ({type(error).__name__})"
                        raise Fault(told, transient=False) from error
                    self._sleep(self.poll_s)
                    continue
                if fault.status == 404:
                    raise Fault(f"it does not know batch {batch_id} any more", transient=False) from None
                if not fault.transient or failed >= self.tries:
                    told = self._explain(fault, request, failed)
                    raise Unfinished(f"{told}; batch {batch_id} will be asked for again by the next run") from None
                result = None
            if isinstance(result, Fault):
                raise result
            if result is not None:
                return result.model_copy(update={"batch_id": batch_id})
            self._sleep(self.poll_s)

    @property
    def _service(self) -> str:
        return f"{self.api_type} {urlsplit(self.base_url).hostname}"

    def _submit(self, request: Request, refused: Collection[str]) -> str:
        """Make a batch of one request; returns the service's name of it."""
        raise UserError(f"llm_mode: {self.name} has no batches here")

    def _collect(self, request: Request, batch_id: str) -> Answer | Fault | None:
        """What became of the request in a batch; None as long as it is not done."""
        raise UserError(f"llm_mode: {self.name} has no batches here")

    def _optional(self, request: Request) -> dict[str, Any]:
        """What can be left out or put in another way when the service refuses it, with the value it would have."""
        values = {name: getattr(request, name) for name in ("temperature", "effort")}
        return {name: value for name, value in values.items() if value is not None}

    def _is_refused(self, name: str, fault: Fault) -> bool:
        return fault.status in (400, 422) and re.search(rf"(?<![a-z]){name}\b", fault.names) is not None

    def _cost(self, request: Request, model: str, raw: dict[str, Any], *, batch: bool = False) -> float | None:
        price = price_of(self.price, request.model)
        return cost_usd(self.api_type, model, raw, api_base=self.base_url, price=price, batch=batch)

    def _answer(self, request: Request, *, text: str, thinking: str, **fields: Any) -> Answer:
        return Answer(
            api_type=self.api_type,
            request=request,
            text=_without_surrogates(text),
            thinking=_without_surrogates(thinking),
            started="",
            ended="",
            **fields,
        )

    @contextmanager
    def _reading(self, response: Any, began: float) -> Iterator[None]:
        """Hold the body of a streamed response to what it should be: a stream, well formed, complete in time.

        Args:
            response: the httpx2 response, its body not read yet.
            began: when the request was sent, in seconds of ``time.monotonic``.

        Raises:
            Fault: it is not so.
        """
        # One SDK passes over a page of HTML as an empty stream, the other fails an assertion on it.
        kind = response.headers.get("content-type", "no content type").partition(";")[0].strip().lower()
        if kind != "text/event-stream":
            raise Fault(f"it sent {kind} instead of a stream", status=response.status_code, billed=False)
        # The SDKs time each read, so that a stream of keep-alive events, which they swallow, would never end.
        late = threading.Event()
        connection = response.extensions["network_stream"].get_extra_info("socket")

        def cut() -> None:
            late.set()
            with suppress(OSError):
                # The plain socket's shutdown also for TLS, whose own would pull the session from under the reader.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

        timer = threading.Timer(max(0.0, began + self.timeout_s - time.monotonic()), cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        except Exception as error:
            if late.is_set():
                raise Fault(f"it did not complete the answer within {self.timeout_s:g} s") from error
            if isinstance(error, _MALFORMED):
                raise Fault(f"it sent a malformed stream ({type(error).__name__})") from error
            raise
        finally:
            timer.cancel()

    def _explain(self, fault: Fault, request: Request, failed: int) -> str:
        where = f"{self.name} at {urlsplit(self.base_url).hostname}"
        if fault.transient:
            last = f"status {fault.status}, {fault.words}" if fault.status else fault.words
            advice = "check the network and api_base, and run again: steps that are answered are kept"
            if fault.status:
                advice = "run again later, or with fewer jobs at once: steps that are answered are kept"
            times = "1 try" if failed == 1 else f"{failed} tries"
            return f"{where} did not answer for model {request.model!r} in {times} (the last: {last}); {advice}"
        if _is_about_money(fault):
            advice = "add credit to the account or use another key"
        elif fault.status in (401, 403):
            advice = f"check {self.keys}"
        elif fault.status == 404:
            advice = "set model_name to a model that it serves, or check api_base"
        elif fault.status == 413 or _TOO_LONG.search(fault.words):
            advice = "shorten the prompt (max_memory_round, pool_size) or lower max_completion_tokens"
        else:
            advice = "change the setting that it names"
        status = f"with status {fault.status} " if fault.status else ""
        return f"{where} refused the request for model {request.model!r} {status}({fault.words}); {advice}"

    def _recall(self, request: Request) -> dict[str, str]:
        kept = self._read_memory() | _refused_in_this_process
        keys = {name: self._key(request, name, value) for name, value in self._optional(request).items()}
        return {name: kept[key] for name, key in keys.items() if key in kept}

    def _remember(self, request: Request, refused: Mapping[str, str]) -> None:
        optional = self._optional(request)
        new = {self._key(request, name, optional[name]): words for name, words in refused.items()}
        _refused_in_this_process.update(new)
        if self._memory and new:
            # Of two processes that write at once one is lost, and learns again at the price of one refused request.
            write_text(self._memory, json.dumps(self._read_memory() | new, indent=2, sort_keys=True) + "\n")

    def _read_memory(self) -> dict[str, str]:
        try:
            kept = json.loads(self._memory.read_text(encoding="utf-8")) if self._memory else {}
        except (OSError, ValueError):
            return {}
        return kept if isinstance(kept, dict) else {}

    def _key(self, request: Request, name: str, value: Any) -> str:
        # With the value: a temperature may be refused because it is too high, or for not being the default.
        host = urlsplit(self.base_url).netloc.rpartition("@")[2]
        return f"{host} {request.model} {name}" + ("" if value is None else f"={value}")


def _is_about_money(fault: Fault) -> bool:
    """Whether no money is left: the same request is answered when there is."""
    return bool(fault.codes & _NO_CREDIT or fault.status == 402 or re.search("(?i)credit|billing", fault.words))


def _is_refusal(fault: Fault) -> bool:
    """Whether the request is at fault, and not the key, the account or the address: also by an error in a stream."""
    by_request = fault.status in (400, 413, 422) or (fault.status is None and bool(fault.codes - _NO_KEY))
    return by_request and not fault.transient and not _is_about_money(fault)


class Unfinished(UserError):
    """A request is in a batch of which nothing can be learned now."""


def fault_of(error: BaseException) -> Fault | None:
    """What an exception of an SDK or of its HTTP client means; None where it is a mistake of ours, or an interrupt."""
    import httpx2  # here: it costs what an SDK costs, and where one failed it is loaded already

    # Before the request was sent.
    unsent = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)
    billed = not any(isinstance(one, unsent) for one in (error, error.__cause__))
    if isinstance(error, Fault):
        return error
    if isinstance(error, httpx2.RequestError):
        return Fault(_cause(error), billed=billed)
    if not (hasattr(error, "body") and hasattr(error, "request")):  # APIError of either SDK
        return None
    status = getattr(error, "status_code", None)
    if status is None and error.body is None:
        return Fault(_cause(error), billed=billed)
    headers = error.response.headers if hasattr(error, "response") else {}
    return fault_of_body(status, error.body, headers)


def fault_of_body(status: int | None, body: Any, headers: Mapping[str, str]) -> Fault:
    """What a service's error means, by its status, body and headers; no status: it came in a stream."""
    detail = _error_object(body)
    codes = {str(detail[key]) for key in ("type", "code", "status") if detail.get(key)}
    message = detail.get("message") or detail.get("detail") or ", ".join(sorted(codes))
    if isinstance(message, list):  # FastAPI's, which repeats the whole request as "input"
        message = "; ".join(f"{entry.get('loc')}: {entry.get('msg')}" for entry in message if isinstance(entry, dict))
    message = str(message or (f"it answered {status}" if status else "it sent an error"))
    if status in (None, 200):
        return Fault.in_stream(message, *codes)
    if headers.get("x-should-retry") in ("true", "false"):
        transient = headers["x-should-retry"] == "true"
    else:
        transient = status in (408, 409, 429) or status >= 500
    return Fault(
        message,
        status=status,
        codes=codes,
        names=f"{detail.get('param')} {message}",
        transient=transient and not codes & _NO_CREDIT,
        retry_after_s=retry_after_s(headers, detail),
        billed=False,
    )


def retry_after_s(headers: Mapping[str, str], detail: Mapping[str, Any] | None = None) -> float | None:
    """Seconds that a service asks to wait, by its headers or, as Gemini does, by RetryInfo in its error; else None."""
    details = (detail or {}).get("details")
    texts = [(headers.get("retry-after-ms"), 0.001), (headers.get("retry-after"), 1.0)]
    for entry in details if isinstance(details, list) else []:
        if isinstance(entry, dict) and str(entry.get("@type", "")).endswith("RetryInfo"):
            texts.append((str(entry.get("retryDelay")).removesuffix("s"), 1.0))
    for text, unit in texts:
        if text is None:
            continue
        try:
            seconds = float(text) * unit
        except ValueError:
            try:
                seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
            except (ValueError, OverflowError):
                continue
        if not math.isnan(seconds):
            return max(0.0, seconds)
    return None


def phrase(text: str) -> str:
    """The first sentence of a service's message, on one line, without its full stop and without keys."""
    secrets = [
        part
        for name, value in os.environ.items()
        if re.search(r"KEY|TOKEN|SECRET|PASSWORD|CUSTOM_HEADERS", name)
        for part in value.split()
        if len(part) >= 8
    ]
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    text = _LOOKS_LIKE_A_KEY.sub("***", " ".join(_without_surrogates(text).split()))
    text = re.split(r"(?<=[.!?])\s", text, maxsplit=1)[0].rstrip(".!? ")
    return text if len(text) <= 200 else text[:197] + "..."


def _error_object(body: Any) -> dict[str, Any]:
    """The error in a response's body: {"error": {...}}, the same in a list (Gemini), {"error": "..."} or plain text."""
    if isinstance(body, list):
        body = body[0] if body else {}
    if isinstance(body, dict) and body.get("error"):
        body = body["error"]
    if isinstance(body, dict):
        return body
    return {"message": body} if isinstance(body, str) and "<" not in body else {}


def _cause(error: BaseException) -> str:
    """What went wrong below a connection error, whose own message says nothing more."""
    while error.__cause__:
        error = error.__cause__
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _without_surrogates(text: str) -> str:
    """Text that can be written as UTF-8: halves of a character that came in two events are joined, others replaced."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
