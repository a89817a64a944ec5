"""What an answer costs, by the price list that comes with genai-prices: nothing is fetched."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from snakernel.config import Price, PriceOrPrices
from snakernel.llm.base import Request, Usage

BYTES_PER_TOKEN = 2.5
"""Bytes of a prompt that make a token at least: code and English text have 3 to 4."""

_PROVIDERS = {"claude": "anthropic", "openai": "openai", "gemini": "google"}


def prompt_tokens(text: str) -> int:
    """Tokens of a prompt, estimated from its length, rather too many than too few."""
    return math.ceil(len(text.encode("utf-8")) / BYTES_PER_TOKEN)


def price_of(price: PriceOrPrices, model: str) -> Price | None:
    """The user's own price of a model."""
    return price.get(model) if isinstance(price, Mapping) else price


def worst_usd(
    api_type: str, request: Request, *, api_base: str | None = None, price: PriceOrPrices = None, batch: bool = False
) -> float | None:
    """The most that a request can cost in US dollars: the longest answer, and a prompt that is written to the cache
    or not, whichever costs more.

    None where the price of the model is not known.
    """
    tokens = prompt_tokens(request.prompt)
    price = price_of(price, request.model)
    costs = []
    for written in (0, tokens):
        usage = Usage(input_tokens=tokens, output_tokens=request.max_completion_tokens, cache_write_tokens=written)
        costs.append(cost_usd(api_type, request.model, usage, api_base=api_base, price=price, batch=batch))
    return None if None in costs else max(costs)


def cost_usd(
    api_type: str,
    model: str,
    usage: Usage | Mapping[str, Any],
    *,
    api_base: str | None = None,
    price: Price | None = None,
    batch: bool = False,
) -> float | None:
    """The list price of one answer in US dollars; None where it cannot be known.

    Args:
        api_type: claude, openai or gemini.
        model: the model as served.
        usage: tokens; or the service's response object, of which the service tier and the cache's lifetime count too.
        api_base: the address that answered: a reseller on the list has prices of its own.
        price: a price of the user's own, which comes before the list.
        batch: it was asked in a batch, at half the price.
    """
    import genai_prices  # here: it takes 0.2 s, and is needed only where an answer came

    try:
        if isinstance(usage, Usage):
            counted = usage.model_dump(exclude={"reasoning_tokens"})  # they are in output_tokens
            tokens, context = genai_prices.Usage(**counted), {}
        else:
            tokens, context = _read(api_type, usage)
        if price is not None:
            return _by_own_price(price, tokens) / (2 if batch else 1)
        if batch:
            context["processing"] = "batch"
        model = model.removeprefix("models/")  # so Gemini lists them
        where: list[dict[str, str]] = [{"provider_id": _PROVIDERS[api_type]}]
        if api_base:
            where.insert(0, {"provider_api_url": api_base})
        for provider in where:
            try:
                return float(genai_prices.calc_price(tokens, model, **provider, price_context=context).total_price)
            except LookupError:
                continue
    except (LookupError, TypeError, ValueError):  # a response without usage, or with one that is no usage
        pass
    return None


def _by_own_price(price: Price, tokens: Any) -> float:
    read, written = tokens.cache_read_tokens or 0, tokens.cache_write_tokens or 0
    plain = (tokens.input_tokens or 0) - read - written
    parts = [(plain, price.input), (tokens.output_tokens or 0, price.output)]
    parts += [(read, price.cache_read), (written, price.cache_write)]
    return sum(count * (usd if usd is not None else price.input) for count, usd in parts) / 1e6


def billed_output_tokens(usage: Mapping[str, Any]) -> int:
    """Tokens that Gemini bills as output: its completion_tokens may leave the thoughts out, its total does not."""
    completion = usage.get("completion_tokens") or 0
    return max(completion, (usage.get("total_tokens") or 0) - (usage.get("prompt_tokens") or 0))


def _read(api_type: str, response: Mapping[str, Any]) -> tuple[Any, dict[str, str]]:
    """Tokens and price context out of a response object."""
    import genai_prices

    usage = response["usage"]
    flavor = {"claude": "default", "gemini": "chat"}.get(api_type)
    flavor = flavor or ("responses" if response.get("object") == "response" else "chat")
    read = genai_prices.extract_usage({"usage": usage}, provider_id=_PROVIDERS[api_type], api_flavor=flavor).usage
    if api_type == "gemini":
        read.output_tokens = billed_output_tokens(usage)
    context = {
        "service_tier": usage.get("service_tier") or response.get("service_tier"),
        "speed": usage.get("speed"),
    }
    return read, {name: value for name, value in context.items() if value}
