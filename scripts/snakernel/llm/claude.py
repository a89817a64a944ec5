"""Claude, through Anthropic's Messages API, always streamed: a long answer must not look like a dead connection."""

from __future__ import annotations

import time
from collections.abc import Collection
from functools import cached_property
from typing import Any

from snakernel.llm.base import Answer, Request, Usage, split
from snakernel.llm.retry import CONNECT_TIMEOUT_S, Fault, Service


class Claude(Service):
    """Models of Anthropic, and of servers that speak its protocol."""

    api_type = "claude"
    name = "Claude"
    keys = "ANTHROPIC_API_KEY or ANTHROPIC_AUTH_TOKEN"

    @cached_property
    def _client(self) -> Any:
        import anthropic  # here: it takes a second or more, and only the job that asks needs it

        return anthropic.Anthropic(
            api_key=self.api_key,
            base_url=self.base_url,
            timeout=anthropic.Timeout(self.read_timeout_s, connect=min(CONNECT_TIMEOUT_S, self.read_timeout_s)),
            max_retries=0,
        )

    def _optional(self, request: Request) -> dict[str, Any]:
        return super()._optional(request) | ({} if request.thinking is None else {"thinking": request.thinking})

    def _parameters(self, request: Request, options: dict[str, Any]) -> dict[str, Any]:
        """The request's body, but for the model and the answer's length."""
        system, user = split(request.prompt)
        parameters: dict[str, Any] = {"messages": [{"role": "user", "content": user}]}
        if system:
            # What does not change from step to step is read from the service's cache, at a tenth of the price.
            parameters["system"] = [{"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}]
        if "thinking" in options:
            value = options["thinking"]
            kind = {"type": value} if isinstance(value, str) else {"type": "enabled", "budget_tokens": value}
            parameters["thinking"] = kind
        if "effort" in options:
            parameters["output_config"] = {"effort": options["effort"]}
        if "temperature" in options:
            # Not a parameter of the SDK any more, as new models take none; older ones do.
            parameters["extra_body"] = {"temperature": options["temperature"]}
        return parameters

    def _send(self, request: Request, refused: Collection[str]) -> Answer:
        options = {name: value for name, value in self._optional(request).items() if name not in refused}
        began = time.monotonic()
        with (
            self._client.messages.stream(
                model=request.model,
                max_tokens=request.max_completion_tokens,
                **self._parameters(request, options),
            ) as stream,
            self._reading(stream.response, began),
        ):
            message = stream.get_final_message()
            if message.stop_reason is None:
                raise Fault("the stream ended without a stop reason")
            parts = _parts(message)  # here: a message that is not of the right shape is a malformed stream
        return self._complete(request, message, parts, stream.request_id)

    def _submit(self, request: Request, refused: Collection[str]) -> str:
        options = {name: value for name, value in self._optional(request).items() if name not in refused}
        parameters = self._parameters(request, options)
        parameters |= parameters.pop("extra_body", {})
        params = {"model": request.model, "max_tokens": request.max_completion_tokens, **parameters}
        return self._client.messages.batches.create(requests=[{"custom_id": "question", "params": params}]).id

    def _collect(self, request: Request, batch_id: str) -> Answer | Fault | None:
        batches = self._client.messages.batches
        batch = batches.retrieve(batch_id)
        if batch.processing_status != "ended":
            return None
        entry = next(iter(batches.results(batch_id)), None) if batch.results_url else None
        if entry is None:
            return Fault(f"the results of batch {batch_id} are no longer kept", transient=False)
        result = entry.result
        if result.type == "succeeded":
            return self._complete(request, result.message, _parts(result.message), None, batch=True)
        if result.type == "errored":
            error = result.error.error
            permanent = error.type == "invalid_request_error"
            return Fault(
                error.message,
                status=400 if permanent else None,
                codes=[error.type],
                names=error.message,
                transient=not permanent,
                billed=False,
            )
        return Fault(f"the batch was {result.type}", billed=False)

    def _complete(
        self,
        request: Request,
        message: Any,
        parts: tuple[dict[str, Any], str, str],
        request_id: str | None,
        *,
        batch: bool = False,
    ) -> Answer:
        raw, text, thinking = parts
        warnings = []
        if message.stop_reason == "refusal":
            category = getattr(message.stop_details, "category", None)
            warnings.append(f"the model refused to answer{f' ({category})' if category else ''}")
        model = raw.get("model") or request.model
        return self._answer(
            request,
            text=text,
            thinking=thinking,
            model=model,
            stop_reason=message.stop_reason,
            request_id=request_id,
            usage=_usage(message.usage),
            cost_usd=self._cost(request, model, raw, batch=batch),
            warnings=warnings,
            raw=raw,
        )


def _parts(message: Any) -> tuple[dict[str, Any], str, str]:
    """A message's own object without its content, its text and its thinking."""
    raw = message.to_dict(mode="json", warnings=False)
    raw.pop("content", None)
    texts = [block.text for block in message.content if block.type == "text"]
    thoughts = [block.thinking for block in message.content if block.type == "thinking"]
    return raw, "".join(texts), "".join(thoughts)


def _usage(counted: Any) -> Usage:
    read, written = counted.cache_read_input_tokens or 0, counted.cache_creation_input_tokens or 0
    return Usage(
        input_tokens=(counted.input_tokens or 0) + read + written,  # the service counts them apart
        output_tokens=counted.output_tokens or 0,
        cache_read_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=getattr(counted.output_tokens_details, "thinking_tokens", None) or 0,
    )
