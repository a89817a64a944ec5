"""OpenAI, through its Responses API, and Chat Completions where an address has only that."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Collection
from functools import cached_property
from typing import Any

from snakernel.llm.base import Answer, Request, Usage, split
from snakernel.llm.retry import CONNECT_TIMEOUT_S, Fault, Service, fault_of_body

_NO_STOP_REASON = "the stream ended without a stop reason"


class OpenAI(Service):
    """Models of OpenAI, and of the many servers that speak one of its protocols."""

    api_type = "openai"
    name = "OpenAI"
    keys = "OPENAI_API_KEY"

    @cached_property
    def _client(self) -> Any:
        import openai  # here: it takes half a second or more, and only the job that asks needs it

        return openai.OpenAI(
            api_key=self.api_key,
            base_url=self.base_url,
            timeout=openai.Timeout(self.read_timeout_s, connect=min(CONNECT_TIMEOUT_S, self.read_timeout_s)),
            max_retries=0,
        )

    def _optional(self, request: Request) -> dict[str, Any]:
        # The last two have another form in Chat Completions: max_tokens, and no usage.
        return {**super()._optional(request), "responses": None, "max_completion_tokens": None, "stream_options": None}

    def _is_refused(self, name: str, fault: Fault) -> bool:
        if name != "responses":
            return super()._is_refused(name, fault)
        if fault.status == 400:
            return re.search(r"not supported (in|with|by) .*responses", fault.words, re.IGNORECASE) is not None
        # An unknown model is a 404 too, but then the service says so.
        about_model = re.search(r"\bmodel(\b|_not_found)", f"{fault.words} {fault.codes}", re.IGNORECASE)
        return fault.status in (404, 405, 501) and not about_model

    def _send(self, request: Request, refused: Collection[str]) -> Answer:
        return self._chat(request, refused) if "responses" in refused else self._respond(request, refused)

    def _respond(self, request: Request, refused: Collection[str]) -> Answer:
        import openai
        from openai.types.responses import Response

        post, events = self._client.post, openai.Stream[object]
        body = {
            "model": request.model,
            "max_output_tokens": request.max_completion_tokens,
            "store": False,
            "stream": True,
            **self._respond_parameters(request, refused),
        }
        began = time.monotonic()
        with (
            # The SDK's own method makes a schema of every kind of event, and a job needs five of them.
            post("/responses", cast_to=object, body=body, stream=True, stream_cls=events) as stream,
            self._reading(stream.response, began),
        ):
            response, texts = None, []
            for event in stream:
                kind = event.get("type")
                if kind == "response.output_text.delta":
                    texts.append(event["delta"])
                elif kind == "error":
                    raise Fault.in_stream(event.get("message") or "it sent an error", event.get("code") or "")
                elif kind in ("response.completed", "response.incomplete", "response.failed"):
                    response = Response.construct(**event["response"])
                    break
            if response is None:
                raise Fault(_NO_STOP_REASON)
            # Here: a response that is not of the right shape is a malformed stream.
            parts = _parts(response, "".join(texts))
        return self._complete(request, stream.response.headers.get("x-request-id"), *parts)

    def _submit(self, request: Request, refused: Collection[str]) -> str:
        body = {
            "model": request.model,
            "max_output_tokens": request.max_completion_tokens,
            "store": False,
            **self._respond_parameters(request, refused),
        }
        line = {"custom_id": "question", "method": "POST", "url": "/v1/responses", "body": body}
        content = json.dumps(line).encode() + b"\n"
        file = self._client.files.create(file=("question.jsonl", content), purpose="batch")
        batch = self._client.batches.create(input_file_id=file.id, endpoint="/v1/responses", completion_window="24h")
        return batch.id

    def _collect(self, request: Request, batch_id: str) -> Answer | Fault | None:
        from openai.types.responses import Response

        batch = self._client.batches.retrieve(batch_id)
        if batch.status not in ("completed", "failed", "expired", "cancelled"):
            return None
        for file_id in (batch.output_file_id, batch.error_file_id):
            for line in self._client.files.content(file_id).text.splitlines() if file_id else []:
                reply = json.loads(line).get("response") or {}
                if reply.get("status_code") == 200:
                    try:
                        response = Response.construct(**reply["body"])
                        return self._complete(request, reply.get("request_id"), *_parts(response), batch=True)
                    except Fault as fault:
                        return fault
                if reply:
                    return fault_of_body(reply["status_code"], reply.get("body"), {})
        if batch.status == "failed":
            told = "; ".join(error.message or error.code or "" for error in (batch.errors and batch.errors.data) or [])
            return Fault(told or "the batch failed", status=400, names=told, transient=False, billed=False)
        return Fault(f"the batch was {batch.status}", billed=False)

    def _respond_parameters(self, request: Request, refused: Collection[str]) -> dict[str, Any]:
        system, user = split(request.prompt)
        parameters: dict[str, Any] = {"input": user} | ({"instructions": system} if system else {})
        if request.effort is not None and "effort" not in refused:
            parameters["reasoning"] = {"effort": request.effort}
        return parameters | self._temperature(request, refused)

    def _chat_parameters(self, request: Request, refused: Collection[str]) -> dict[str, Any]:
        system, user = split(request.prompt)
        messages = [{"role": "system", "content": system}] if system else []
        parameters: dict[str, Any] = {"messages": [*messages, {"role": "user", "content": user}]}
        if request.effort is not None and "effort" not in refused:
            parameters["reasoning_effort"] = request.effort
        return parameters | self._temperature(request, refused)

    def _chat(self, request: Request, refused: Collection[str]) -> Answer:
        limit = "max_tokens" if "max_completion_tokens" in refused else "max_completion_tokens"
        options = {} if "stream_options" in refused else {"stream_options": {"include_usage": True}}
        began = time.monotonic()
        with (
            self._client.chat.completions.create(
                model=request.model,
                stream=True,
                **{limit: request.max_completion_tokens},
                **options,
                **self._chat_parameters(request, refused),
            ) as stream,
            self._reading(stream.response, began),
        ):
            raw: dict[str, Any] = {}
            counted, stop_reason = None, None
            texts, thoughts, refusals = [], [], []
            for chunk in stream:
                raw |= chunk.to_dict(mode="json", warnings=False)
                counted = chunk.usage or counted
                for choice in chunk.choices or []:
                    stop_reason = choice.finish_reason or stop_reason
                    texts.append(choice.delta.content or "")
                    refusals.append(getattr(choice.delta, "refusal", None) or "")
                    # Not OpenAI's, but what vLLM, DeepSeek and OpenRouter send.
                    for name in ("reasoning_content", "reasoning"):
                        thoughts.append(getattr(choice.delta, name, None) or "")
            if stop_reason is None:
                raise Fault(_NO_STOP_REASON)
            usage = counted and self._chat_usage(counted)
        raw.pop("choices", None)
        raw |= {"finish_reason": stop_reason, "usage": counted and counted.to_dict(mode="json", warnings=False)}
        text, refusal, warnings = "".join(texts), "".join(refusals), []
        if refusal and not text:
            stop_reason, text = "refusal", refusal
            warnings.append("the model refused to answer")
        request_id = stream.response.headers.get("x-request-id")
        return self._complete(request, request_id, raw, usage, text, "".join(thoughts), stop_reason, warnings)

    def _chat_usage(self, counted: Any) -> Usage:
        return Usage(
            input_tokens=_count(counted, "prompt_tokens"),
            output_tokens=_count(counted, "completion_tokens"),
            cache_read_tokens=_count(counted, "prompt_tokens_details", "cached_tokens"),
            cache_write_tokens=_count(counted, "prompt_tokens_details", "cache_write_tokens"),
            reasoning_tokens=_count(counted, "completion_tokens_details", "reasoning_tokens"),
        )

    def _temperature(self, request: Request, refused: Collection[str]) -> dict[str, float]:
        if request.temperature is None or "temperature" in refused:
            return {}
        return {"temperature": request.temperature}

    def _complete(
        self,
        request: Request,
        request_id: str | None,
        raw: dict[str, Any],
        usage: Usage | None,
        text: str,
        thinking: str,
        stop_reason: str,
        warnings: list[str],
        *,
        batch: bool = False,
    ) -> Answer:
        if stop_reason.startswith("content_filter"):
            warnings = [*warnings, f"the service held the answer back ({stop_reason})"]
        if usage is None:
            warnings = [*warnings, "the service did not say how many tokens it counted"]
        model = raw.get("model") or request.model
        return self._answer(
            request,
            text=text,
            thinking=thinking,
            model=model,
            stop_reason=stop_reason,
            request_id=request_id or raw.get("id"),
            usage=usage or Usage(),
            cost_usd=self._cost(request, model, raw, batch=batch),
            warnings=warnings,
            raw=raw,
        )


def _parts(response: Any, streamed: str = "") -> tuple[dict[str, Any], Usage | None, str, str, str, list[str]]:
    """A response's own object without its output, its usage, text, thinking, stop reason, and what is to be told.

    ``streamed`` is its text where some servers send it in events only.
    """
    stop_reason = response.status or "completed"
    warnings = []
    if response.status == "failed":
        if "policy" not in response.error.code:
            raise Fault.in_stream(response.error.message, response.error.code)
        stop_reason = "refusal"
        warnings.append(f"the service refused to answer ({response.error.code})")
    elif response.status == "incomplete":
        stop_reason = getattr(response.incomplete_details, "reason", None) or stop_reason
    text = response.output_text or streamed
    parts = [part for item in response.output for part in (getattr(item, "content", None) or [])]
    refusals = [part.refusal for part in parts if part.type == "refusal"]
    if refusals and not text:
        stop_reason, text = "refusal", "".join(refusals)
        warnings.append("the model refused to answer")
    thoughts = [part.text for part in parts if part.type == "reasoning_text"]
    thoughts += [part.text for item in response.output for part in (getattr(item, "summary", None) or [])]
    usage = response.usage and Usage(
        input_tokens=_count(response.usage, "input_tokens"),
        output_tokens=_count(response.usage, "output_tokens"),
        cache_read_tokens=_count(response.usage, "input_tokens_details", "cached_tokens"),
        cache_write_tokens=_count(response.usage, "input_tokens_details", "cache_write_tokens"),
        reasoning_tokens=_count(response.usage, "output_tokens_details", "reasoning_tokens"),
    )
    raw = response.to_dict(mode="json", warnings=False)
    for name in ("output", "instructions"):
        raw.pop(name, None)
    return raw, usage, text, "\n\n".join(thoughts), stop_reason, warnings


def _count(counts: Any, *path: str) -> int:
    """A count inside a usage object; 0 where the server left it out."""
    for name in path:
        counts = getattr(counts, name, None)
    return counts or 0
