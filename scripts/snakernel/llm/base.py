"""What every provider takes and gives."""

from __future__ import annotations

from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field


class Question(BaseModel):
    """What a prompt was made of."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")

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
    """The tasks of another run whose best kernels the prompt showed."""
    model: str | None = None
    """models: the one that is asked; sweep: who chose the values; else model_name is asked."""
    model_scores: dict[str, float] = Field(default_factory=dict)
    """What each model was drawn by: its share, or with a bandit the improvement for a dollar that was drawn for it."""


class Prompt(Question):
    """prompt.json, beside prompt.md."""

    skip: str | None = None
    """Why the step needs not be asked, where so: then prompt.md says the same."""
    limits: dict[str, float | None] = Field(default_factory=dict)
    """The limits that were in force, by their configuration keys: with others, a step that they skipped is asked."""

    @property
    def question(self) -> Question:
        """What the journal keeps of it."""
        return Question(**self.model_dump(include=set(Question.model_fields)))


class Request(BaseModel):
    """One question to a model."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")

    prompt: str
    """The whole user message."""
    model: str
    """The model as the provider names it."""
    temperature: float | None = None
    """Sampling temperature; None sends none."""
    max_completion_tokens: int
    """Upper bound of the answer's length, in tokens, thinking included."""
    question: Question = Field(default_factory=Question)
    """What the prompt was made of; it is not sent."""


class Usage(BaseModel):
    """Tokens of one answer, as the service counted them."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")

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


class Answer(BaseModel):
    """One answer as it came: the journal keeps it, response.json repeats it."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")

    format_version: int = 1
    """Version of this file's format."""
    api_type: str
    """The provider: claude, openai, gemini or replay."""
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


class Provider(Protocol):
    """A service that answers."""

    def ask(self, request: Request) -> Answer:
        """Send one question and wait for the whole answer.

        Raises:
            UserError: asking again cannot help (no key, bad key, unknown model, prompt too long, tries used up).
        """
        ...
