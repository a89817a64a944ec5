"""A server on 127.0.0.1 that speaks Anthropic Messages, OpenAI Chat Completions and OpenAI Responses, faults included.

In a test::

    with LLMServer() as server:
        server.script(Reply(status=529), Reply(text="hello"))
        os.environ.update(server.environment())   # for other processes too

From another process: ``POST /_server/script`` takes a list of replies as JSON, ``GET /_server`` tells the counts,
``POST /_server/reset`` forgets. Alone: ``python tests/llm_server.py --port 8123 [--script replies.json]``.

Requests are answered by the script in order, and by ``answer`` once it is used up. Requests to the control addresses
are not counted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import select
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PROTOCOLS = {"/messages": "messages", "/chat/completions": "chat", "/responses": "responses"}
FAULTS = (
    "reset",  # the connection is reset before anything was sent
    "silent",  # nothing is ever sent
    "html",  # status 200 and a page of HTML
    "json",  # status 200 and one JSON document where a stream was asked for
    "empty",  # a stream without events
    "cut",  # the connection breaks in the middle of the answer
    "truncated",  # the stream ends in order, without the event that says why
    "malformed",  # an event (or the document) that is not JSON
    "misshapen",  # an event that is JSON, but no object
    "stall",  # nothing more in the middle of the answer
    "trickle",  # keep-alive events without end
    "error",  # an error event in the middle of the stream: `error`, else an overloaded service
)


@dataclass
class Reply:
    """What one request gets: an answer, an HTTP error where ``status`` is not 200, or a fault."""

    text: str = "hello"
    thinking: str = ""
    stop: str | None = None
    """The protocol's word for why the answer ended; None: that it was complete."""
    refusal: str | None = None
    """Refuses: the category of Messages, the words of the other two protocols."""
    model: str | None = None
    """The model as served; None: the one that was asked."""
    input_tokens: int = 11
    """All of the input, cached ones included."""
    output_tokens: int = 7
    """All of the output, thinking included."""
    cache_read: int = 0
    cache_write: int = 0
    reasoning: int = 0
    hidden: int = 0
    """Output tokens that only the total of Chat Completions counts (Gemini's thoughts)."""
    usage: bool = True
    """Whether tokens are told at all."""
    details: bool = True
    """Whether usage tells more than input and output."""
    repeats: bool = True
    """Whether the last event of Responses holds the text again, as OpenAI's does."""
    pieces: list[str] | None = None
    """The text as it is cut into events; None: in two."""
    status: int = 200
    error: Any = None
    """The body of an HTTP error, or the data of an error event; None: one in the protocol's form."""
    headers: dict[str, str] = field(default_factory=dict)
    fault: str | None = None
    """One of FAULTS."""
    delay_s: float = 0.0
    """Seconds before anything is sent."""

    def __post_init__(self) -> None:
        if self.fault is not None and self.fault not in FAULTS:
            raise ValueError(f"fault: {self.fault!r} is not one of {FAULTS}")


@dataclass
class Received:
    """One request as it came."""

    path: str
    protocol: str
    headers: dict[str, str]
    """Names in lower case."""
    body: dict[str, Any]

    @property
    def prompt(self) -> str:
        """The user's message."""
        return self.body["input"] if self.protocol == "responses" else self.body["messages"][-1]["content"]


class LLMServer:
    """The server; use it as a context manager.

    Args:
        answer: what a request gets when no script is left: a reply, or a function that makes one of the request.
        port: 0 takes a free one.
    """

    def __init__(self, answer: Reply | Callable[[Received], Reply] | None = None, *, port: int = 0):
        self.answer: Reply | Callable[[Received], Reply] = answer or Reply()
        self.missing: set[str] = set()
        """Protocols that this address does not have: they get 404."""
        self.refused: dict[str, str] = {}
        """Parameters that get 400, with the message that names them."""
        self.requests: list[Received] = []
        self.answered = 0
        """Answers that were sent completely, without a fault."""
        self.polls = 1
        """How often a batch is asked for before it is done."""
        self.results: bytes | None = None
        """What is sent instead of a batch's results."""
        self.results_gone = False
        """Whether the results of batches are no longer offered."""
        self.batches: dict[str, dict[str, Any]] = {}
        """Batches by their names, and the files that go with them."""
        self.in_flight = 0
        self.max_in_flight = 0
        self._script: list[Reply] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.owner = self
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> LLMServer:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def script(self, *replies: Reply) -> None:
        """Answer the next requests so, one each."""
        with self._lock:
            self._script.extend(replies)

    def reset(self) -> None:
        """Forget the script, the requests and what is missing or refused."""
        with self._lock:
            self._script.clear()
            self.requests.clear()
            self.missing.clear()
            self.refused.clear()
            self.batches.clear()
            self.answered = self.max_in_flight = 0
            self.polls = 1
            self.results, self.results_gone = None, False

    def environment(self) -> dict[str, str]:
        """Environment variables that send all three services here, with keys, and around any proxy."""
        return {
            "ANTHROPIC_BASE_URL": self.url,
            "ANTHROPIC_API_KEY": "sk-ant-test-0123456789",
            "OPENAI_BASE_URL": f"{self.url}/v1",
            "OPENAI_API_KEY": "sk-openai-test-0123456789",
            "GEMINI_BASE_URL": f"{self.url}/v1beta/openai/",
            "GEMINI_API_KEY": "AIzaTest0123456789",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def counts(self) -> dict[str, int]:
        """Requests, complete answers, replies left in the script, the most requests that were open at once."""
        with self._lock:
            return {
                "requests": len(self.requests),
                "answered": self.answered,
                "left": len(self._script),
                "max_in_flight": self.max_in_flight,
            }

    def _take(self, received: Received) -> Reply:
        with self._lock:
            self.requests.append(received)
            if received.protocol in self.missing:
                return Reply(status=404, error={"detail": "Not Found"})
            for name, message in self.refused.items():
                if name in received.body:
                    return Reply(status=400, error=_error(received.protocol, 400, message, name))
            if self._script:
                return self._script.pop(0)
        return self.answer(received) if callable(self.answer) else self.answer

    @contextlib.contextmanager
    def _open(self) -> Iterator[None]:
        with self._lock:
            self.in_flight += 1
            self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            yield
        finally:
            with self._lock:
                self.in_flight -= 1


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    owner: LLMServer

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # clients go as they like
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each small event waits 40 ms for an acknowledgement
    server: _Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/_server":
            return self._send_json(200, self.server.owner.counts())
        name, _, end = re.sub(r".*/(?:batches|files)/", "", self.path).partition("/")
        batch = self.server.owner.batches.get(name)
        if batch is None:
            return self._send_json(404, {"error": {"type": "not_found_error", "message": "there is no such batch"}})
        if end:
            results = self.server.owner.results
            return self._send(200, "application/jsonl", self._results(batch) if results is None else results)
        batch["polls"] -= 1
        self._send_json(200, self._batch(name, batch))

    def do_POST(self) -> None:
        owner = self.server.owner
        content = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path == "/_server/script":
            owner.script(*(Reply(**reply) for reply in json.loads(content)))
            return self._send_json(200, owner.counts())
        if self.path == "/_server/reset":
            owner.reset()
            return self._send_json(200, owner.counts())
        if self.path.endswith("/files"):
            lines = content.partition(b"filename=")[2].partition(b"\r\n\r\n")[2].partition(b"\r\n--")[0]
            return self._send_json(200, {"id": self._add({"lines": lines.decode()}), "object": "file"})
        if self.path.endswith("/batches"):
            return self._send_json(200, self._create(json.loads(content)))
        protocol = next((name for end, name in PROTOCOLS.items() if self.path.endswith(end)), None)
        if protocol is None:
            return self._send_json(404, {"detail": "Not Found"})
        headers = {name.lower(): value for name, value in self.headers.items()}
        received = Received(self.path, protocol, headers, json.loads(content))
        with owner._open(), contextlib.suppress(ConnectionError):
            self._reply(received, owner._take(received))

    # Batches: of one request each. The script's reply is taken when a batch is made; a fault makes it expire.

    def _add(self, entry: dict[str, Any]) -> str:
        owner = self.server.owner
        with owner._lock:
            name = f"batch_{len(owner.batches) + 1}"
            owner.batches[name] = entry | {"polls": owner.polls, "url": self.path}
        return name

    def _create(self, body: dict[str, Any]) -> dict[str, Any]:
        if "requests" in body:
            protocol, question = "messages", body["requests"][0]["params"]
        else:
            line = json.loads(self.server.owner.batches[body["input_file_id"]]["lines"])
            protocol, question = "responses", line["body"]
        received = Received(self.path, protocol, {}, question)
        reply = self.server.owner._take(received)
        self._count(reply)
        name = self._add({"received": received, "reply": reply, "protocol": protocol})
        return self._batch(name, self.server.owner.batches[name])

    def _batch(self, name: str, batch: dict[str, Any]) -> dict[str, Any]:
        done, now = batch["polls"] < 0, "2026-01-01T00:00:00Z"
        if batch["protocol"] == "messages":
            counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
            url = f"{self.server.owner.url}{batch['url']}/{name}/results"
            offered = done and not self.server.owner.results_gone
            state = {"processing_status": "ended" if done else "in_progress", "results_url": url if offered else None}
            batch = {"type": "message_batch", "created_at": now, "expires_at": now, "request_counts": counts}
            return {"id": name, **batch, **state}
        status = ("expired" if batch["reply"].fault else "completed") if done else "in_progress"
        kind = "error_file_id" if batch["reply"].status != 200 else "output_file_id"
        file = {kind: name} if status == "completed" else {}
        fields = {"completion_window": "24h", "created_at": 0, "endpoint": "/v1/responses", "input_file_id": "batch_0"}
        return {"id": name, "object": "batch", "status": status, **fields, **file}

    def _results(self, batch: dict[str, Any]) -> bytes:
        received, reply, protocol = batch["received"], batch["reply"], batch["protocol"]
        error = reply.error or _error(protocol, reply.status, f"scripted {reply.status}")
        body = _documents[protocol](received, reply) if reply.status == 200 else error
        if protocol == "responses":
            response = {"status_code": reply.status, "request_id": "req_batch", "body": body}
            return json.dumps({"id": "x", "custom_id": "question", "response": response, "error": None}).encode()
        result = {"type": "succeeded", "message": body} if reply.status == 200 else {"type": "errored", "error": body}
        result = {"type": "expired"} if reply.fault else result
        return json.dumps({"custom_id": "question", "result": result}).encode() + b"\n"

    def _reply(self, received: Received, reply: Reply) -> None:
        owner = self.server.owner
        if reply.delay_s:
            owner._closing.wait(reply.delay_s)
        if reply.fault == "reset":
            return self._break()
        if reply.fault == "silent":
            return self._hold()
        if reply.fault == "html":
            return self._send(200, "text/html", b"<html><body>Please log in</body></html>", reply.headers)
        if reply.status != 200:
            error = reply.error
            if error is None:
                error = _error(received.protocol, reply.status, f"scripted {reply.status}")
            if isinstance(error, str):
                return self._send(reply.status, "text/html", error.encode(), reply.headers)
            return self._send_json(reply.status, error, reply.headers)
        if not received.body.get("stream") or reply.fault == "json":
            return self._document(received, reply)
        self._stream(received, reply)

    def _document(self, received: Received, reply: Reply) -> None:
        document = json.dumps(_documents[received.protocol](received, reply)).encode()
        if reply.fault == "malformed":
            return self._send(200, "application/json", document[: len(document) // 2], reply.headers)
        if reply.fault == "cut":
            self._head(200, "application/json", reply.headers, len(document))
            self.wfile.write(document[: len(document) // 2])
            return self._break()
        self._count(reply)
        self._send(200, "application/json", document, reply.headers)

    def _stream(self, received: Received, reply: Reply) -> None:
        self._head(200, "text/event-stream; charset=utf-8", reply.headers)
        events = [] if reply.fault == "empty" else list(_streams[received.protocol](received, reply))
        if reply.fault not in (None, "json", "empty"):
            # Up to the first piece of text: the fault comes in the middle of the answer.
            events = events[: 1 + next(i for i, event in enumerate(events) if event[2])]
        for number, (name, data, _) in enumerate(events, 1):
            if number == len(events):
                self._count(reply)
            self._event(name, data)
        if reply.fault == "cut":
            return self._break()
        if reply.fault == "stall":
            return self._hold()
        if reply.fault == "trickle":
            return self._hold(
                b'event: ping\ndata: {"type": "ping"}\n\n' if received.protocol == "messages" else b": \n\n"
            )
        if reply.fault == "malformed":
            self._event(events[-1][0], '{"type": "cont')
        if reply.fault == "misshapen":
            self._event(events[-1][0], "5")
        if reply.fault == "error":
            overloaded = _error(received.protocol, 529, "Overloaded")
            if received.protocol == "responses":
                overloaded = overloaded["error"] | {"type": "error", "sequence_number": len(events)}
            self._event("error", reply.error or overloaded)
        self.wfile.write(b"0\r\n\r\n")

    def _event(self, name: str | None, data: Any) -> None:
        text = data if isinstance(data, str) else json.dumps(data)
        self._chunk(((f"event: {name}\n" if name else "") + f"data: {text}\n\n").encode())

    def _chunk(self, content: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))

    def _hold(self, keep_alive: bytes = b"") -> None:
        """Keep the connection until the client goes, 5 s at most; send ``keep_alive`` meanwhile."""
        for _ in range(250):
            if select.select([self.connection], [], [], 0.02)[0] and not self.connection.recv(1):
                break
            if keep_alive:
                self._chunk(keep_alive)
        self.close_connection = True

    def _break(self) -> None:
        """Reset the connection: no orderly end, no goodbye."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())  # close() would wait for the files that were made of the socket
        self.close_connection = True

    def _count(self, reply: Reply) -> None:
        """Count a complete answer; before its end is sent, as the client may look at once and need not read on."""
        if reply.fault is None:
            with self.server.owner._lock:
                self.server.owner.answered += 1

    def _send_json(self, status: int, document: Any, headers: dict[str, str] | None = None) -> None:
        self._send(status, "application/json", json.dumps(document).encode(), headers)

    def _send(self, status: int, kind: str, content: bytes, headers: dict[str, str] | None = None) -> None:
        self._head(status, kind, headers, len(content))
        self.wfile.write(content)

    def _head(self, status: int, kind: str, headers: dict[str, str] | None, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header(*(("transfer-encoding", "chunked") if length is None else ("content-length", str(length))))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()


# The protocols. A stream yields the event's name, its data, and whether it holds a piece of the text.


def _error(protocol: str, status: int, message: str, param: str | None = None) -> dict[str, Any]:
    kinds = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "api_error")
    if protocol == "messages":
        kind = "overloaded_error" if status == 529 else kind
        return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_scripted"}
    code = "overloaded" if status == 529 else None
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _pieces(reply: Reply) -> list[str]:
    half = len(reply.text) // 2
    return [piece for piece in (reply.pieces or [reply.text[:half], reply.text[half:]]) if piece] or [""]


def _message(received: Received, reply: Reply) -> dict[str, Any]:
    blocks = [{"type": "thinking", "thinking": reply.thinking, "signature": "c2ln"}] if reply.thinking else []
    usage: dict[str, Any] = {
        "input_tokens": reply.input_tokens - reply.cache_read - reply.cache_write,
        "output_tokens": reply.output_tokens,
    }
    details = {
        "cache_creation_input_tokens": reply.cache_write,
        "cache_read_input_tokens": reply.cache_read,
        "output_tokens_details": {"thinking_tokens": reply.reasoning},
        "service_tier": "standard",
    }
    return {
        "id": "msg_scripted",
        "type": "message",
        "role": "assistant",
        "model": reply.model or received.body["model"],
        "content": [*blocks, {"type": "text", "text": reply.text}],
        "stop_reason": "refusal" if reply.refusal else reply.stop or "end_turn",
        "stop_sequence": None,
        "stop_details": {"type": "refusal", "category": reply.refusal, "explanation": ""} if reply.refusal else None,
        "usage": usage | details if reply.details else usage,
    }


def _message_stream(received: Received, reply: Reply) -> Iterator[tuple[str | None, Any, bool]]:
    message = _message(received, reply)
    usage = message["usage"] | {"output_tokens": 1}
    usage.pop("output_tokens_details", None)
    begun = message | {"content": [], "stop_reason": None, "stop_details": None, "usage": usage}
    yield "message_start", {"type": "message_start", "message": begun}, False
    yield "ping", {"type": "ping"}, False
    for index, block in enumerate(message["content"]):
        kind = block["type"]
        empty = {"type": kind, kind: ""} | ({"signature": ""} if kind == "thinking" else {})
        yield "content_block_start", {"type": "content_block_start", "index": index, "content_block": empty}, False
        for piece in _pieces(reply) if kind == "text" else [block[kind]]:
            delta = {"type": f"{kind}_delta", kind: piece}
            data = {"type": "content_block_delta", "index": index, "delta": delta}
            yield "content_block_delta", data, kind == "text"
        yield "content_block_stop", {"type": "content_block_stop", "index": index}, False
    delta = {name: message[name] for name in ("stop_reason", "stop_sequence", "stop_details")}
    usage = {name: count for name, count in message["usage"].items() if name.startswith("output_tokens")}
    yield "message_delta", {"type": "message_delta", "delta": delta, "usage": usage}, False
    yield "message_stop", {"type": "message_stop"}, False


def _chat_usage(reply: Reply) -> dict[str, Any]:
    usage: dict[str, Any] = {
        "prompt_tokens": reply.input_tokens,
        "completion_tokens": reply.output_tokens,
        "total_tokens": reply.input_tokens + reply.output_tokens + reply.hidden,
    }
    details = {
        "prompt_tokens_details": {"cached_tokens": reply.cache_read, "cache_write_tokens": reply.cache_write},
        "completion_tokens_details": {"reasoning_tokens": reply.reasoning},
    }
    return usage | details if reply.details else usage


def _chat(received: Received, reply: Reply) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": None if reply.refusal else reply.text}
    message["refusal"] = reply.refusal
    if reply.thinking:
        message["reasoning_content"] = reply.thinking
    return {
        "id": "chatcmpl-scripted",
        "object": "chat.completion",
        "created": 1700000000,
        "model": reply.model or received.body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": reply.stop or "stop"}],
        **({"usage": _chat_usage(reply)} if reply.usage else {}),
    }


def _chat_stream(received: Received, reply: Reply) -> Iterator[tuple[str | None, Any, bool]]:
    document = _chat(received, reply) | {"object": "chat.completion.chunk"}
    usage = document.pop("usage", None)

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return document | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    yield None, chunk({"role": "assistant", "content": ""}), False
    if reply.thinking:
        yield None, chunk({"reasoning_content": reply.thinking}), False
    for piece in [reply.refusal] if reply.refusal else _pieces(reply):
        yield None, chunk({"refusal" if reply.refusal else "content": piece}), True
    yield None, chunk({}, reply.stop or "stop"), False
    if usage and (received.body.get("stream_options") or {}).get("include_usage"):
        yield None, document | {"choices": [], "usage": usage}, False
    yield None, "[DONE]", False


def _response(received: Received, reply: Reply) -> dict[str, Any]:
    output: list[dict[str, Any]] = []
    if reply.thinking:
        summary = [{"type": "summary_text", "text": reply.thinking}]
        output.append({"id": "rs_scripted", "type": "reasoning", "summary": summary})
    part: dict[str, Any] = {"type": "output_text", "text": reply.text, "annotations": []}
    if reply.refusal:
        part = {"type": "refusal", "refusal": reply.refusal}
    output.append(
        {"id": "msg_scripted", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    )
    usage: dict[str, Any] = {
        "input_tokens": reply.input_tokens,
        "output_tokens": reply.output_tokens,
        "total_tokens": reply.input_tokens + reply.output_tokens,
    }
    details = {
        "input_tokens_details": {"cached_tokens": reply.cache_read, "cache_write_tokens": reply.cache_write},
        "output_tokens_details": {"reasoning_tokens": reply.reasoning},
    }
    usage |= details if reply.details else {}
    return {
        "id": "resp_scripted",
        "object": "response",
        "created_at": 1700000000,
        "model": reply.model or received.body["model"],
        "status": "incomplete" if reply.stop else "completed",
        "error": None,
        "incomplete_details": {"reason": reply.stop} if reply.stop else None,
        "instructions": None,
        "output": output,
        "usage": usage if reply.usage else None,
        "service_tier": "default",
    }


def _response_stream(received: Received, reply: Reply) -> Iterator[tuple[str | None, Any, bool]]:
    response = _response(received, reply)
    events: list[tuple[dict[str, Any], bool]] = []
    begun = response | {"status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    events.append(({"type": "response.created", "response": begun}, False))
    kind = "response.refusal.delta" if reply.refusal else "response.output_text.delta"
    place = {"item_id": "msg_scripted", "output_index": len(response["output"]) - 1, "content_index": 0}
    for piece in [reply.refusal] if reply.refusal else _pieces(reply):
        events.append(({"type": kind, **place, "delta": piece}, True))
    if isinstance(reply.error, dict) and reply.fault is None:
        response |= {"status": "failed", "error": reply.error, "output": [], "usage": None}
    response |= {} if reply.repeats else {"output": []}
    events.append(({"type": f"response.{response['status']}", "response": response}, False))
    for number, (data, is_text) in enumerate(events):
        yield data["type"], data | {"sequence_number": number}, is_text


_documents = {"messages": _message, "chat": _chat, "responses": _response}
_streams = {"messages": _message_stream, "chat": _chat_stream, "responses": _response_stream}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--script", type=Path, help="replies, as a JSON list")
    arguments = parser.parse_args()
    with LLMServer(port=arguments.port) as server:
        if arguments.script:
            server.script(*(Reply(**reply) for reply in json.loads(arguments.script.read_text(encoding="utf-8"))))
        print(json.dumps(server.environment()), flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
