"""Gemini, through the address where Google speaks OpenAI's Chat Completions."""

from __future__ import annotations

import os
from collections.abc import Collection
from functools import cached_property
from typing import Any

from snakernel.llm.base import Answer, Request, Usage
from snakernel.llm.openai import OpenAI
from snakernel.llm.prices import billed_output_tokens


class Gemini(OpenAI):
    """Models of Google."""

    api_type = "gemini"
    name = "Gemini"
    keys = "GEMINI_API_KEY or GOOGLE_API_KEY"

    @cached_property
    def _client(self) -> Any:
        import openai

        # What the environment adds to requests to OpenAI is not Google's to see.
        headers = os.environ.get("OPENAI_CUSTOM_HEADERS", "").splitlines()
        unsent = {header.partition(":")[0].strip(): openai.Omit() for header in headers}
        client = super()._client.with_options(
            default_headers={**unsent, "Authorization": f"Bearer {self.api_key}"},
        )
        client.organization = client.project = None
        return client

    def _optional(self, request: Request) -> dict[str, Any]:
        return {name: value for name, value in super()._optional(request).items() if name != "responses"}

    def _send(self, request: Request, refused: Collection[str]) -> Answer:
        return self._chat(request, refused)

    def _chat_usage(self, counted: Any) -> Usage:
        usage = super()._chat_usage(counted)
        output = billed_output_tokens(counted.to_dict())
        thoughts = max(usage.reasoning_tokens, output - usage.output_tokens)
        return usage.model_copy(update={"output_tokens": output, "reasoning_tokens": thoughts})
