"""What every provider takes and gives."""

from __future__ import annotations

from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from snakernel.errors import UserError

CUT = {"max_tokens", "max_output_tokens", "length", "model_context_window_exceeded"}
"""The services' words for an answer that met its upper bound."""


class Question(BaseModel):
    """What a prompt was made of."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    format_version: int = 1
    """Version of this file's format."""
    role: Literal["proposer", "tuner", "sweep"] = "proposer"
    """The template."""
    base: int | None = None
    """tuner: the step whose kernel the model was shown to edit; its edits are applied to that one. sweep: the step
    whose kernel is tried with other values."""
    shown: list[int] = Field(default_factory=list)
    """The earlier steps that the prompt showed, in its order."""
    parameters: dict[str, bool | int | float | str] | None = None
    """sweep: the values that the kernel is tried with."""
    ideas: list[int] = Field(default_factory=list)
    """planner: the earlier steps whose ideas the prompt listed."""
    lessons: list[str] = Field(default_factory=list)
    """The tasks of another run, or before this one in its own, whose best kernels the prompt showed."""
    model: str | None = None
    """models: the one that is asked, by its name there; sweep: who chose the values; else model_name is asked."""
    model_scores: dict[str, float] = Field(default_factory=dict)
    """What each model was drawn by: its share, or with a bandit the improvement for a dollar that was drawn for it."""


class Prompt(Question):
    """prompt.json, beside prompt.md."""

    skip: str | None = None
    """Why the step needs not be asked, where so: then prompt.md says the same."""
    limits: dict[str, Any] = Field(default_factory=dict)
    """The limits that were in force, by their configuration keys."""

    @property
    def question(self) -> Question:
        """What the journal keeps of it."""
        return Question(**self.model_dump(include=set(Question.model_fields)))


class Request(BaseModel):
    """One question to a model."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    prompt: str
    """The whole prompt; :func:`split` says which part of it is the system's."""
    model: str
    """The model as the provider names it."""
    temperature: float | None = None
    """Sampling temperature; None sends none."""
    max_completion_tokens: int
    """Upper bound of the answer's length, in tokens, thinking included."""
    thinking: Literal["adaptive", "disabled"] | int | None = None
    """Claude's thinking: adaptive, disabled, or a budget in tokens; None sends none."""
    effort: str | None = None
    """How much the model is to think, in the service's words; None sends none."""
    question: Question = Field(default_factory=Question)
    """What the prompt was made of; it is not sent."""


class Usage(BaseModel):
    """Tokens of one answer, as the service counted them."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    input_tokens: int = 0
    """All tokens of the request, cached ones included."""
    output_tokens: int = 0
    """All tokens of the answer, thinking included."""
    cache_read_tokens: int = 0
    """Those of the input that were read from the service's cache."""
    cache_write_tokens: int = 0
    """Those of the input that were written to the service's cache."""
    reasoning_tokens: int = 0
    """Those of the output that were thinking."""


USER_PART = "<!-- user -->"
"""The line of a prompt that ends what does not change from step to step. That is sent as the system's part, which
services keep in their caches; what follows is the user's. A prompt without that line is all the user's."""


def split(prompt: str) -> tuple[str, str]:
    """The system's and the user's part of a prompt."""
    system, line, user = prompt.partition(f"\n{USER_PART}\n")
    return (system.strip("\n"), user.strip("\n")) if line else ("", prompt)


class Answer(BaseModel):
    """One answer as it came: the journal keeps it, response.json repeats it."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    format_version: int = 1
    """Version of this file's format."""
    api_type: str
    """The provider: claude, openai, gemini or replay; also imported and sweep."""
    request: Request
    """What was asked."""
    text: str
    """What was answered, unchanged."""
    thinking: str = ""
    """The model's visible thinking, where the service gives it."""
    model: str
    """The model as served."""
    stop_reason: str
    """Why the answer ended, in the service's own word (end_turn, max_tokens, stop, length, refusal, ...)."""
    batch_id: str | None = None
    """The service's name of the batch that it came in, where it did."""
    request_id: str | None = None
    """The service's name of this request."""
    usage: Usage = Field(default_factory=Usage)
    """Tokens."""
    cost_usd: float | None = None
    """Price of the answer in US dollars; None where the price of the model is not known."""
    started: str
    """When the request was first sent, ISO 8601, UTC."""
    ended: str
    """When the answer was complete, ISO 8601, UTC."""
    attempts: int = 1
    """Requests that were sent until one was answered."""
    waited_s: float = 0.0
    """Seconds that were spent waiting between attempts."""
    warnings: list[str] = Field(default_factory=list)
    """What a person should know of this answer: a parameter that was dropped, an end that was cut."""
    raw: dict[str, Any] = Field(default_factory=dict)
    """The service's own response object, without the text."""

    @property
    def is_cut(self) -> bool:
        """Whether it met its upper bound before its end."""
        return self.stop_reason in CUT


class Sent(BaseModel):
    """A request on its way, or one of which nobody knows what became: a line of sent.jsonl and lost.jsonl."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    started: str
    """When it was sent, ISO 8601, UTC."""
    model: str
    """The model as it was asked for."""
    api_type: str | None = None
    """Who was asked; None in runs that had one service, and did not write it down."""
    input_tokens: int
    """Tokens of the prompt, estimated."""
    max_completion_tokens: int
    """Upper bound of the answer's length, in tokens."""
    worst_usd: float | None
    """The most that it can have cost in US dollars, by that estimate; None where the price is not known."""
    waits: bool = False
    """It is reserved, but was not sent yet."""
    batch_id: str | None = None
    """The service's name of the batch that it is in: what comes of it can be collected later."""
    service: str = ""
    """The API and the host that have the batch."""
    request: Request | None = None
    """What was asked, where it is in a batch."""
    why: str = ""
    """What became of it, as far as it is known."""


class Refused(UserError):
    """The service does not take the request as it is."""


class Gate:
    """What is told of every request before and after it; this one does nothing."""

    def send(self, request: Request) -> None:
        """Wait until the request may be sent.

        Raises:
            NotAsked: it must not.
        """

    def submitted(self, request: Request, batch_id: str, service: str) -> None:
        """It is in a batch."""

    def pending(self) -> Sent | None:
        """The request of this step that is in a batch, by whichever process."""

    def leave(self) -> None:
        """It stays in its batch, and another process will ask what became of it."""

    def answered(self, answer: Answer) -> None:
        """It was answered."""

    def forget(self) -> None:
        """It was not answered and has cost nothing."""

    def lose(self, why: str) -> None:
        """It was not answered, but may have cost something."""


class Provider(Protocol):
    """A service that answers."""

    def ask(self, request: Request) -> Answer:
        """Send one question and wait for the whole answer.

        Raises:
            UserError: asking again cannot help (no key, bad key, unknown model, prompt too long, tries used up).
        """
        ...
