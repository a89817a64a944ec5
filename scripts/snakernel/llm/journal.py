"""The journal of what models answered: drawn once, kept until a person takes it away.

A step's entry is results/{run}/answers/{task}/{step}.json. It is no rule's output, so Snakemake never deletes it, and
it is on disk, whole, before anything looks at the answer. Beside it:

{step}.{when}.json   answers that were set aside: by redraw.py, or because they were cut and asked again with more room
                     ({step}.{when}.cut.json until there is an answer)
{step}.{when}.damaged what was set aside because it cannot be read
{step}.sent.jsonl    the request that is in flight, or was when its process died
{step}.lost.jsonl    requests that may have been paid for and brought no answer
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from snakernel.errors import UserError
from snakernel.files import explain, read_model, read_text, reserve, write_model, write_text
from snakernel.llm.base import Answer, Provider, Refused, Request, Sent
from snakernel.skipping import NotAsked

_CUT = ".cut.json"
"""Ending of the names of answers that were cut, until the step has its answer."""

RESERVED_BYTES = 2**21
"""Disk space that is taken before a model is asked: more than its prompt, its answer and its thinking."""


def kept_answers(results: Path | str, task: str) -> list[Answer]:
    """All answers that a task has in the journal, those that were set aside too: each was paid for."""
    return [read_model(path, Answer) for path in answer_files(Path(results) / "answers" / task)]


def lost_requests(results: Path | str, task: str) -> list[Sent]:
    """The requests of a task that may have been paid for and brought no answer."""
    folder = Path(results) / "answers" / task
    return [sent for path in sorted(folder.glob("*.lost.jsonl")) for sent in read_sent(path)]


def answer_files(folder: Path) -> list[Path]:
    """The entries in a task's folder of the journal."""
    return sorted(folder.glob("[!.]*.json"))


def once_each(folder: Path) -> list[Path]:
    """The entries in a task's folder, without those that were cut and have just become their step's answer."""
    paths = answer_files(folder)

    def is_answer(cut: Path) -> bool:
        answer = folder / f"{cut.name.partition('.')[0]}.json"
        return answer in paths and _read_answer(answer).ended == _read_answer(cut).ended

    return [path for path in paths if not (path.name.endswith(_CUT) and is_answer(path))]


def read_sent(path: Path) -> list[Sent]:
    """The lines of a file of requests; the last line may be cut, where its process was killed."""
    lines = read_text(path).splitlines()
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(Sent.model_validate_json(line))
        except ValueError as error:
            if number < len(lines):
                raise UserError(f"{path}, line {number}: {explain(error)}") from None  # type: ignore[arg-type]
    return found


def _read_answer(path: Path) -> Answer:
    return read_model(path, Answer)


class Journal:
    """The entry of one step."""

    def __init__(self, results: Path | str, task: str, step: int):
        self.answers = Path(results) / "answers"
        self.folder = self.answers / task
        self.step = step
        self.path = self.folder / f"{step}.json"
        self.sent = self.folder / f"{step}.sent.jsonl"
        self.lost = self.folder / f"{step}.lost.jsonl"
        self._lock = self.folder / f".{step}.lock"
        self.counting = self.answers / ".ledger.lock"
        """The lock under which what was spent is counted, and answers get other names. It is taken after the step's."""

    def read(self) -> Answer | None:
        """The kept answer, or None where the step was never answered."""
        return read_model(self.path, Answer) if self.path.exists() else None

    def asked(self) -> Request | None:
        """The request that was answered, or that is in a batch; None where the step may be asked anything."""
        if self.sent.exists():
            self.recover()  # its process may have been killed when it had the answer
        kept = self.read()
        pending = self.pending() if kept is None else None
        return kept.request if kept is not None else pending.request if pending is not None else None

    def pending(self) -> Sent | None:
        """The request that is in a batch."""
        return next((sent for sent in read_sent(self.sent) if sent.batch_id), None) if self.sent.exists() else None

    def answer(
        self, request: Callable[[], Request], provider: Callable[[], Provider], *, more_room: int = 0
    ) -> tuple[Answer, bool]:
        """The kept answer, else a new one, kept before it is returned; and whether it is new.

        Both functions are called only where the model must be asked. The entry is locked meanwhile: of two processes
        that want the same answer, one asks and the other reads. The lock goes with its process.

        Args:
            request: makes the question.
            provider: makes who answers.
            more_room: how often an answer that was cut is asked again, with twice the room each time.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self._lock):
            self._recover()
            kept = self.read()
            if kept is not None:
                return kept, False
            # An answer that finds the disk full would be lost: its place is taken before it is asked for.
            with reserve(self.path, RESERVED_BYTES) as keep:
                answer = self._ask(request(), provider(), more_room)
                keep(answer)
            # First: as long as the request is known, other processes settle what this one leaves.
            self._name_cut()
            self._settle(answer)
            return answer, True

    def _ask(self, request: Request, provider: Provider, more_room: int) -> Answer:
        """Ask, and again with more room as long as the answer is cut; those that were cut are kept too."""
        most = request.max_completion_tokens * 2**more_room
        # A process that was killed may have had one that was cut already.
        asked = [answer for answer in map(_read_answer, self._cut()) if answer.request.prompt == request.prompt]
        cut = asked[0] if asked else None
        while True:
            if cut is not None:
                if cut.request.max_completion_tokens >= most:
                    return cut
                room = min(most, 2 * cut.request.max_completion_tokens)
                request = request.model_copy(update={"max_completion_tokens": room})
            try:
                answer = provider.ask(request)
            except (Refused, NotAsked) as error:
                if cut is None:
                    raise
                return cut.model_copy(update={"warnings": [*cut.warnings, f"no more room for it: {error}"]})
            if cut is not None:
                told = f"an answer of {cut.usage.output_tokens} tokens was cut, so it was asked again with more room"
                answer = answer.model_copy(update={"warnings": [told, *answer.warnings]})
            if not answer.is_cut:
                return answer
            cut = answer
            if cut.request.max_completion_tokens < most:
                self._keep(cut, self._beside(cut.ended, _CUT))

    def _cut(self) -> list[Path]:
        """Answers that were cut, the last one first."""
        return sorted(self.folder.glob(f"{self.step}.*{_CUT}"), reverse=True)

    def _keep(self, answer: Answer, path: Path) -> None:
        write_model(path, answer, durable=True)
        self._settle(answer)

    def _settle(self, answer: Answer) -> None:
        """Forget the request that was answered. A batch that did not bring the answer may want to be paid for too."""
        pending = self.pending()
        if pending is not None and pending.batch_id != answer.batch_id:
            self._add_lost(pending.model_copy(update={"why": "the step was answered otherwise"}))
        self.sent.unlink(missing_ok=True)

    def _recover(self, *, counted: bool = False) -> None:
        """Settle what a killed process left.

        An answer that was written whole, but had not its name yet, is taken; half ones are dropped. A request that was
        in flight is lost, but in a batch. Answers that were cut are no more asked again where there is an answer.
        ``counted``: this process holds the lock under which answers get other names.
        """
        for left in sorted(self.folder.glob(f".{self.path.name}.*.tmp")):
            try:
                # Killed after it was written and before what was reserved and not needed was given back.
                os.truncate(left, len(left.read_bytes().rstrip(b"\0")))
                read_model(left, Answer)
            except UserError:
                left.unlink()
                continue
            if self.path.exists():
                left.unlink()
            else:
                left.rename(self.path)
        for left in self.folder.glob(f".{self.sent.name}.*.tmp"):
            left.unlink()  # killed before the request: it is sent when its line is there
        self._name_cut(counted=counted)
        for sent in read_sent(self.sent) if self.sent.exists() else []:
            # Killed between keeping the answer and forgetting the request?
            answered = any(read_model(path, Answer).ended >= sent.started for path in self._entries())
            if sent.batch_id:
                kept = self.read()
                if kept is not None:
                    self._settle(kept)
                elif any(read_model(path, Answer).batch_id == sent.batch_id for path in self._entries()):
                    self.sent.unlink()
                continue
            if not sent.waits and not answered:
                self._add_lost(sent.model_copy(update={"why": "its process was killed"}))
            self.sent.unlink()

    def _name_cut(self, *, counted: bool = False) -> None:
        """Where the step has its answer, those that were cut get the names of answers that were set aside."""
        kept = self.read() if self._cut() else None
        if kept is None:
            return
        with nullcontext() if counted else FileLock(self.counting):
            for path in self._cut():
                if _read_answer(path).ended == kept.ended:  # there was no more room, so it is the answer
                    path.unlink()
                else:
                    path.rename(path.with_name(path.name.replace(_CUT, ".json")))

    def _entries(self) -> list[Path]:
        return [path for path in answer_files(self.folder) if path.name.partition(".")[0] == str(self.step)]

    def send(self, sent: Sent) -> None:
        """Write down that a request is about to be sent: durably, unless it still waits."""
        write_text(self.sent, sent.model_dump_json() + "\n", durable=not sent.waits)

    def forget(self) -> None:
        """The request that was sent was not answered and has cost nothing."""
        self.sent.unlink(missing_ok=True)

    def lose(self, why: str) -> None:
        """The request that was sent was not answered, but may have cost something."""
        for sent in read_sent(self.sent):
            self._add_lost(sent.model_copy(update={"why": why, "request": None}))
        self.sent.unlink()

    def _add_lost(self, sent: Sent) -> None:
        with self.lost.open("a", encoding="utf-8") as file:
            file.write(sent.model_dump_json() + "\n")
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def if_abandoned(self) -> Iterator[bool]:
        """Whether no process asks this step; as long as the context lasts none can begin to."""
        try:
            with FileLock(self._lock, blocking=False):
                yield True
        except Timeout:
            yield False

    def recover(self, *, counted: bool = False) -> bool:
        """Settle what a killed process left of this step; False where its process is alive.

        ``counted``: the caller holds the lock under which what was spent is counted.
        """
        with self.if_abandoned() as abandoned:
            if abandoned:
                self._recover(counted=counted)
            return abandoned

    def set_aside(self) -> Path:
        """Rename the kept answer, so that the step is drawn again; the old answer stays beside the new one.

        Returns:
            Where the old answer is now: {step}.{when it ended}.json, or .damaged where it cannot be read: then it
            counts as a lost request, of the price that the step's response.json tells, or of an unknown one.

        Raises:
            UserError: the step was never answered.
        """
        with FileLock(self._lock), FileLock(self.counting):
            if not self.path.exists():
                raise UserError(f"{self.path}: this step has no answer to set aside")
            try:
                aside = self._beside(read_model(self.path, Answer).ended)
            except UserError:
                now = datetime.now(UTC).isoformat(timespec="milliseconds")
                aside = self._beside(now, ".damaged")
                self._add_lost(self._of_damaged(now, f"its answer was damaged, see {aside.name}"))
            self.path.rename(aside)
            return aside

    def _of_damaged(self, now: str, why: str) -> Sent:
        """What is known of an answer whose entry is damaged: the step's response.json is a copy of it."""
        known = {"model": "unknown", "input_tokens": 0, "max_completion_tokens": 0, "worst_usd": None}
        with suppress(UserError):
            copy = read_model(self.answers.parent / self.folder.name / f"step_{self.step}" / "response.json", Answer)
            known = {
                "model": copy.request.model,
                "api_type": copy.api_type,
                "input_tokens": copy.usage.input_tokens,
                "max_completion_tokens": copy.request.max_completion_tokens,
                "worst_usd": copy.cost_usd,
            }
        return Sent(started=now, why=why, **known)

    def _beside(self, when: str, ending: str = ".json") -> Path:
        ended = datetime.fromisoformat(when).astimezone(UTC).strftime("%Y%m%dT%H%M%S.%f")
        return self.path.with_name(f"{self.step}.{ended}{ending}")
