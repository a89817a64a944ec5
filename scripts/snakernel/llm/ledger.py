"""What a run may still spend, over all its processes.

Paid is what the journal's answers cost, those that were set aside too. A request counts at the most that it can cost
from before it is sent until its answer is in the journal, and for ever where nobody knows what became of it. The sum
of both never passes max_cost, so that only an answer that costs more than its estimate can.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock

from snakernel.errors import UserError
from snakernel.files import read_json, read_model, write_text
from snakernel.llm.base import Answer, Gate, Request, Sent
from snakernel.llm.journal import Journal, once_each, read_sent
from snakernel.llm.limits import Limits
from snakernel.llm.prices import BYTES_PER_TOKEN, prompt_tokens
from snakernel.skipping import NotAsked

POLL_S = 0.1
"""Seconds between two looks at whether a request of another process was settled."""


@dataclass
class Spent:
    """US dollars."""

    paid: float = 0.0
    """What answers cost."""
    lost: float = 0.0
    """The most that requests without an answer can have cost."""
    in_flight: float = 0.0
    """The most that requests can cost that other processes wait for."""

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.paid + other.paid, self.lost + other.lost, self.in_flight + other.in_flight)


class Ledger(Gate):
    """Writes down the requests of one step before they are sent, and sends none that the budget cannot bear.

    Args:
        journal: the step's entry, which this process holds.
        api_type: who is asked.
        worst_usd: the most that a request to a service can cost; None where that is not known. Other steps' requests
            may be to other services.
        max_cost: US dollars that the whole run may cost; None: no bound.
        max_cost_per_task: the same for each task.
        limits: what processes share besides money.
        sleep: waits until another request is settled.
    """

    def __init__(
        self,
        journal: Journal,
        api_type: str,
        worst_usd: Callable[[str | None, Request], float | None],
        *,
        max_cost: float | None = None,
        max_cost_per_task: float | None = None,
        limits: Limits | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ):
        self.journal, self.api_type = journal, api_type
        self.max_cost, self.max_cost_per_task = max_cost, max_cost_per_task
        self._worst_usd, self._limits, self._sleep = worst_usd, limits, sleep

    def send(self, request: Request) -> None:
        """Reserve what a request can cost, wait for its turn, and write down that it is sent, durably.

        While requests of other processes are in flight that may leave enough, it waits for them.

        Raises:
            NotAsked: the budget is spent.
            UserError: the budget is bounded and the price of the model, or of an answer in the journal, is not known.
        """
        worst = self._worst_usd(self.api_type, request)
        sent = Sent(
            started=_now(),
            model=request.model,
            api_type=self.api_type,
            input_tokens=prompt_tokens(request.prompt),
            max_completion_tokens=request.max_completion_tokens,
            worst_usd=worst,
            waits=True,
        )
        if self.max_cost is not None or self.max_cost_per_task is not None:
            self._reserve(sent, worst)
        if self._limits is not None:
            self._limits.take(sent.input_tokens + sent.max_completion_tokens)
        self.journal.send(sent.model_copy(update={"started": _now(), "waits": False}))

    def submitted(self, request: Request, batch_id: str, service: str) -> None:
        """Write down the batch, durably. Who waits for it takes no place of those that are in flight."""
        (sent,) = read_sent(self.journal.sent)
        self.journal.send(sent.model_copy(update={"batch_id": batch_id, "service": service, "request": request}))
        self.leave()

    def pending(self) -> Sent | None:
        """The request of this step that is in a batch, by whichever process."""
        return self.journal.pending()

    def leave(self) -> None:
        """The request's place is free."""
        if self._limits is not None:
            self._limits.done()

    def answered(self, answer: Answer) -> None:
        """The request's place is free; what it can cost is reserved until the journal has its answer."""
        if self._limits is not None:
            self._limits.done(answer.usage.input_tokens + answer.usage.output_tokens)

    def forget(self) -> None:
        """What was reserved is free again."""
        self.journal.forget()
        self.leave()

    def lose(self, why: str) -> None:
        """What was reserved may be spent."""
        self.journal.lose(why)
        self.leave()

    def _reserve(self, sent: Sent, worst: float | None) -> None:
        if worst is None:
            raise UserError(
                f"max_cost: the price of model {sent.model!r} is not known; set price: {{input: USD, output: USD}} "
                "per million tokens"
            )
        while True:
            with FileLock(self.journal.counting):
                refusal = self._refusal(worst)
                if refusal is None:
                    self.journal.send(sent)
                    return
            if not refusal.may_pass:
                raise NotAsked(str(refusal))
            self._sleep(POLL_S)

    def _refusal(self, worst: float) -> _Refusal | None:
        tasks = {folder.name: self._spent(folder) for folder in self._folders()}
        bounds = [
            ("max_cost", self.max_cost, sum(tasks.values(), Spent())),
            ("max_cost_per_task", self.max_cost_per_task, tasks.get(self.journal.folder.name, Spent())),
        ]
        found = None
        for key, bound, spent in bounds:
            if bound is None or spent.paid + spent.lost + spent.in_flight + worst <= bound:
                continue
            refusal = _Refusal(key, bound, spent, worst)
            if not refusal.may_pass:
                return refusal
            found = refusal
        return found

    def _folders(self) -> list[Path]:
        return sorted(folder for folder in self.journal.answers.iterdir() if folder.is_dir())

    def _spent(self, folder: Path) -> Spent:
        spent = Spent()
        for path in sorted(folder.glob("*.sent.jsonl")):
            other = Journal(self.journal.answers.parent, folder.name, int(path.name.partition(".")[0]))
            if other.path == self.journal.path:  # of a request that has ended
                continue
            abandoned = other.recover(counted=True)
            worst = sum(self._worst_of(sent, path) for sent in _read_if_there(path))
            if abandoned:  # in a batch that nobody waits for now
                spent.lost += worst
            else:
                spent.in_flight += worst
        for path in folder.glob("*.lost.jsonl"):
            spent.lost += sum(self._worst_of(sent, path) for sent in read_sent(path))
        spent.paid = self._paid(folder)
        return spent

    def _worst_of(self, sent: Sent, path: Path) -> float:
        """The most that a request can have cost; without a price then, by today's."""
        if sent.worst_usd is not None:
            return sent.worst_usd
        worst = None
        if sent.max_completion_tokens:  # else its answer was damaged, and nothing is known of it
            prompt = " " * int(sent.input_tokens * BYTES_PER_TOKEN)
            request = Request(prompt=prompt, model=sent.model, max_completion_tokens=sent.max_completion_tokens)
            worst = self._worst_usd(sent.api_type, request)
        if worst is None:
            raise UserError(
                f"max_cost: nobody knows what a request in {path} has cost ({sent.why or 'it is on its way'}, "
                f"{sent.started}): write the most that it can have cost there, in US dollars, as its worst_usd"
            )
        return worst

    def _paid(self, folder: Path) -> float:
        """The costs of a task's answers; a file beside them saves reading each again for every request. What is not
        known is not kept there: prices may be configured later."""
        cache = folder / ".costs.json"
        known = read_json(cache) if cache.exists() else {}
        costs: dict[str, tuple[int, int, float | None]] = {}
        for path in once_each(folder):
            stat = path.stat()
            mark = [stat.st_mtime_ns, stat.st_size]
            kept = known.get(path.name)
            costs[path.name] = kept if kept and kept[:2] == mark else [*mark, read_model(path, Answer).cost_usd]
        if costs != known:
            write_text(cache, json.dumps(costs) + "\n")
        return sum(self._most(folder / name) if cost is None else cost for name, (*_, cost) in costs.items())

    def _most(self, path: Path) -> float:
        """The most that an answer without a known cost can have cost, by today's price of who gave it."""
        answer = read_model(path, Answer)
        most = self._worst_usd(answer.api_type, answer.request)
        if most is None:
            raise UserError(
                f"max_cost: {path}, of {answer.api_type}, has no known cost; set price: {{input: USD, output: USD}}"
            )
        return most


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _read_if_there(path: Path) -> list[Sent]:
    try:
        return read_sent(path)
    except UserError:  # it has just been settled
        if path.exists():
            raise
        return []


@dataclass
class _Refusal:
    key: str
    bound: float
    spent: Spent
    worst: float

    @property
    def may_pass(self) -> bool:
        """Whether requests in flight may leave enough."""
        return self.spent.in_flight > 0 and self.spent.paid + self.spent.lost + self.worst <= self.bound

    def __str__(self) -> str:
        lost = f" and perhaps {self.spent.lost:.4f} for requests that were lost" if self.spent.lost else ""
        return (
            f"budget spent: {self.spent.paid:.4f} USD{lost} of {self.key} {self.bound:g}, "
            f"and one more answer may cost {self.worst:.4f}"
        )
