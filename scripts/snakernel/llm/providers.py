"""The services that answer: which there are, where they are and whose key they want."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from snakernel.config import API_ALIASES, Config, PriceOrPrices
from snakernel.errors import UserError
from snakernel.llm.base import Request, Usage

if TYPE_CHECKING:
    from snakernel.llm.retry import Service


@dataclass(frozen=True)
class _Address:
    official: str
    variable: str
    keys: tuple[str, ...]


_ADDRESSES = {
    "claude": _Address(
        "https://api.anthropic.com", "ANTHROPIC_BASE_URL", ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")
    ),
    "openai": _Address("https://api.openai.com/v1", "OPENAI_BASE_URL", ("OPENAI_API_KEY",)),
    "gemini": _Address(
        "https://generativelanguage.googleapis.com/v1beta/openai/",
        "GEMINI_BASE_URL",
        ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    ),
}


def create_provider(
    *,
    api_type: str,
    api_base: str | None = None,
    timeout_s: float = 1800.0,
    read_timeout_s: float = 600.0,
    tries: int = 5,
    memory: Path | str | None = None,
    price: PriceOrPrices = None,
    batch: bool = False,
    poll_s: float = 30.0,
    sleep: Callable[[float], object] = time.sleep,
) -> Service:
    """The provider of ``api_type``; nothing is sent, and the SDK is loaded when the first question is asked.

    Args:
        api_type: claude or anthropic, openai, gemini or google.
        api_base: the address of the API; without it the one that the environment names, else the service's own.
        timeout_s: seconds until one request must be answered completely.
        read_timeout_s: seconds of silence after which a request is given up.
        tries: requests that may fail before a question is given up.
        memory: a JSON file that keeps what services refused, so that other processes need not learn it again.
        price: the price of the model; without it, the price list's.
        batch: send questions in batches.
        poll_s: seconds between two looks at whether a batch is done.
        sleep: waits between two requests.

    Raises:
        UserError: an unknown ``api_type``, an address that is none, or no key.
    """
    api_type = _canonical(api_type)
    base_url = address_of(api_type, api_base)
    api_key = _key(api_type, base_url)
    return _class_of(api_type)(
        api_key=api_key,
        base_url=base_url,
        timeout_s=timeout_s,
        read_timeout_s=read_timeout_s,
        tries=tries,
        memory=memory,
        price=price,
        batch=batch,
        poll_s=poll_s,
        sleep=sleep,
    )


def load_sdk(api_type: str) -> None:
    """Import what asking a service needs, the price list too, and make no client: for a process that forks."""
    import httpcore2  # noqa: F401  (what the SDKs import with their first client)

    from snakernel.llm.prices import cost_usd

    api_type = _canonical(api_type)
    if api_type == "claude":
        import anthropic  # noqa: F401
        import anthropic.resources.messages
        import anthropic.types  # noqa: F401
    else:
        import openai
        import openai.resources.chat
        import openai.resources.responses
        import openai.types.responses  # noqa: F401
    _class_of(api_type)
    cost_usd(api_type, "", Usage())  # reads the list


def check_credentials(api_type: str, api_base: str | None = None) -> None:
    """Check that a key is there, before anything runs; whether the service takes it shows when it is asked.

    Raises:
        UserError: there is none, or it cannot be one; an unknown ``api_type``; an address that is none.
    """
    api_type = _canonical(api_type)
    _key(api_type, address_of(api_type, api_base))


def check_services(config: Config) -> None:
    """Check that each service that a run asks has its key, before anything runs.

    Raises:
        UserError: some have none; all are named.
    """
    faults = []
    for service in config.services:
        try:
            check_credentials(service, config.base_of(service))
        except UserError as error:
            faults.append(str(error))
    if faults:
        raise UserError("; ".join(faults))


def worst_usd_of(config: Config, api_type: str | None, request: Request) -> float | None:
    """The most that a request to one of a run's services can cost in US dollars; None where its price is not known.

    ``api_type`` is None for requests of runs that had one service, and did not write down which.
    """
    from snakernel.llm.prices import worst_usd  # here: a job that needs no price need not load it

    api_type = api_type or config.api_type
    if api_type not in _ADDRESSES:
        return None
    where = address_of(api_type, config.base_of(api_type))
    price = config.prices_of(api_type)
    return worst_usd(api_type, request, api_base=where, price=price, batch=config.llm_mode == "batch")


def without_price(config: Config) -> list[str]:
    """The models that a run asks and whose price is not known."""
    found = []
    for name in config.model_shares if config.asks_a_service else []:
        service, model = config.served(name)
        request = Request(prompt="", model=model, max_completion_tokens=config.max_completion_tokens)
        if worst_usd_of(config, service, request) is None:
            found.append(name)
    return found


def price_to_set(config: Config, names: list[str]) -> str:
    """How prices of models are configured."""
    one = "{input: USD, output: USD}"
    told = f"{{{', '.join(f'{name}: {one}' for name in names)}}}" if config.models else one
    return f"price: {told} per million tokens"


def check_budget(config: Config) -> None:
    """Check that a bound of the costs can be kept, before anything runs.

    Raises:
        UserError: the price of a model is not known; all such models are named.
    """
    if config.max_cost is None and config.max_cost_per_task is None:
        return
    if names := without_price(config):
        key = "max_cost" if config.max_cost is not None else "max_cost_per_task"
        raise UserError(
            f"{key}: cannot be kept, as the price of model {' and '.join(map(repr, names))} is not on the price list; "
            f"set {price_to_set(config, names)}, or take the bound away"
        )


def _class_of(api_type: str) -> type[Service]:
    if api_type == "claude":
        from snakernel.llm.claude import Claude as Chosen
    elif api_type == "openai":
        from snakernel.llm.openai import OpenAI as Chosen
    else:
        from snakernel.llm.gemini import Gemini as Chosen
    return Chosen


def _canonical(api_type: str) -> str:
    known = API_ALIASES.get(api_type, api_type)
    if known not in _ADDRESSES:
        allowed = ", ".join([*_ADDRESSES, *API_ALIASES])
        raise UserError(f"api_type: {api_type!r} is no service that answers, it must be one of {allowed}")
    return known


def address_of(api_type: str, api_base: str | None) -> str:
    """Where a service is asked: ``api_base``, else what the environment names, else its own address.

    Raises:
        UserError: that is no address.
    """
    address = _ADDRESSES[api_type]
    source, url = ("api_base", api_base) if api_base else (address.variable, os.environ.get(address.variable))
    url = (url or "").strip() or address.official
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise UserError(f"{source}: {url!r} is no address, it must start with http:// or https://")
    # OpenAI's address ends in /v1, Anthropic's must not: its SDK adds it.
    return url.rstrip("/").removesuffix("/v1") if api_type == "claude" else url


def _key(api_type: str, base_url: str) -> str:
    address = _ADDRESSES[api_type]
    for name in address.keys:
        key = os.environ.get(name, "").strip()  # a newline out of a file would make a header that cannot be sent
        if key:
            if not (key.isascii() and key.isprintable() and " " not in key):
                raise UserError(f"{name}: the key holds a character that no key has, set it again without quotes")
            return key
    if urlsplit(base_url).hostname != urlsplit(address.official).hostname and api_type != "claude":
        return "none"  # a server of one's own may want no key, but the SDK wants one
    raise UserError(
        f"api_type: {api_type} needs a key in the environment, but {' and '.join(address.keys)} "
        f"{'is' if len(address.keys) == 1 else 'are'} not set"
    )
