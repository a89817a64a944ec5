"""The configuration: every key once, with its default, its meaning and what is allowed."""

from __future__ import annotations

import difflib
import json
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from snakernel.errors import UserError
from snakernel.files import explain, read_text

ApiType = Literal["claude", "openai", "gemini", "replay"]
API_ALIASES = {"anthropic": "claude", "google": "gemini"}
Feedback = Literal["latencies", "baseline", "roofline", "errors", "resources", "notes", "profile"]
WITHOUT_EFFECT = ("level", "problem_id", "dtype_str", "debug")
_DOCUMENTING = __name__ == "__main__"
"""Whether config/ is written: reading the docstrings takes longer than all else that is done here at each start."""
LIMITS = (
    "max_cost",
    "max_cost_per_task",
    "stop_at_speedup",
    "patience",
    "api_type",
    "replay_path",
    "model_name",
    "models",
    "price",
    "max_completion_tokens",
)
"""Keys that end a search early, or that say who would be asked and at what price (limits.yaml): a step that was not
asked is asked when one of them changes."""


class Price(BaseModel):
    """US dollars per million tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=_DOCUMENTING, defer_build=True)

    input: float = Field(ge=0)
    """Tokens of prompts."""
    output: float = Field(ge=0)
    """Tokens of answers, thinking included."""
    cache_read: float | None = Field(default=None, ge=0)
    """Tokens of prompts that the service read from its cache; null: as input."""
    cache_write: float | None = Field(default=None, ge=0)
    """Tokens of prompts that the service wrote to its cache; null: as input."""


PriceOrPrices = Price | Mapping[str, Price] | None
"""One model's price, or several models' by their names."""


def split_model(name: str) -> tuple[str | None, str]:
    """The service that a name of ``models`` begins with, and the model as that service names it.

    None and the whole name where it begins with no service: names of models have colons too.
    """
    service, colon, model = name.partition(":")
    service = API_ALIASES.get(service, service)
    return (service, model) if colon and service in get_args(ApiType) else (None, name)


class Config(BaseModel):
    """All keys of a run. Names, defaults and meanings that the contest's agent baseline has are the same here."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=_DOCUMENTING, protected_namespaces=(), defer_build=True
    )

    test_source: str = "mlsys26-contest"
    """Name of the dataset: the folder below datasets/, and a part of the run's name."""
    dataset_root: str | None = None
    """Folder of the FlashInfer-Trace dataset; default datasets/{test_source}."""
    tasks_path: str = "config/tasks_contest.txt"
    """Task list: one op type a line, then optional definition names separated by commas."""
    run: str | None = None
    """Name of the run's folder below save_path; default {agent_type}_{test_source}."""
    save_path: str | None = None
    """Folder that holds the runs; default results."""
    resume_from: str | None = None
    """Folder of an earlier run of the agent baseline: its kernels, prompts and metrics become the first steps, and the
    run goes on from them. To resume a run of this workflow, repeat its command."""

    agent_type: Literal["iterative", "evolve", "sweep"] = "iterative"
    """The search: iterative tunes its last kernel by edits, evolve proposes from a pool, sweep tries values of what a
    given kernel declares as tunable and asks no model."""
    total_steps: int = Field(default=25, ge=1, le=100_000)
    """Steps of each task; a step is one question to a model and one verdict."""
    max_memory_round: int = Field(default=5, ge=0)
    """Iterative: how many of the last attempts the prompt shows."""
    tune_from: Literal["last", "best"] = "last"
    """Iterative: the kernel that edits go onto. last is the baseline's; best goes back to the best correct one."""
    filter_wrong_attempts: bool = False
    """Iterative: leave attempts that were not correct out of the memory."""
    pool_size: int = Field(default=5, ge=1)
    """Evolve: kernels that the prompt shows; half are the most recent, half are drawn from the correct ones."""
    softmax_temperature: float = Field(default=1.0, ge=0)
    """Evolve: the draw's probabilities are softmax(speedup / softmax_temperature)."""
    refine_steps: int = Field(default=0, ge=0)
    """Evolve: tuning steps that follow each proposal; each is a step of its own on top of total_steps."""
    parallel_proposals: int = Field(default=1, ge=1, le=1000)
    """Steps that start from the same state, so that their answers are awaited together."""
    islands: int = Field(default=1, ge=1, le=1000)
    """Searches beside each other that share total_steps, each with a memory or a pool of its own."""
    migrate_every: int = Field(default=5, ge=1)
    """Islands: rounds after which each one's best is given to the next one, in a ring."""
    sweep_path: str | None = None
    """Sweep: folder of {definition}.py, kernels that declare TUNABLES; or of a finished run, whose best are taken."""
    sweep_steps: int = Field(default=0, ge=0)
    """Iterative and evolve: steps after each proposal and its refinements that ask no model, but try other values of
    what the best of these kernels declares as TUNABLES; on top of total_steps."""
    stop_at_speedup: float | None = Field(default=None, gt=0)
    """Ask no further once a task has a correct kernel with this speedup; null never stops so."""
    patience: int | None = Field(default=None, ge=1)
    """Ask no further once a task had no better kernel in so many steps; null never stops so."""
    planner: bool = False
    """Ask for the bottleneck and the idea before the code, and show later prompts the list of ideas and outcomes."""
    reject_duplicates: bool = False
    """Do not judge a kernel that is an earlier step's but for comments and layout; the next prompts say so."""
    lessons_from: str | None = None
    """Folder of a finished run: proposals are shown its best kernels for operators of the same op type."""
    lessons_from_siblings: bool = False
    """Show them the best kernels of this run too, of tasks of the same op type that stand before theirs in the task
    list; a task waits for those that it learns from."""
    seed: int = Field(default=0, ge=0)
    """Seed of everything that is drawn at random: the pool, the inputs of the evaluation."""

    gpu_name: str = "A6000"
    """The GPU that prompts name as the target."""
    gpu_architecture: str = "Ampere"
    """Its architecture, as prompts name it."""
    feedback: list[Feedback] = [part for part in get_args(Feedback) if part != "profile"]
    """What prompts tell of a kernel beside its score: latencies a workload beside the reference's; beside them the
    baseline solution's and the least that the device needs (roofline); errors; registers, spills, shared memory and
    occupancy (resources); notes on the figures and on what could not be used of an answer. profile, which is off by
    default, has each correct kernel profiled by Nsight Compute (ncu) where that is found, some seconds of the device
    each, and tells throughputs and stalls."""
    prompts_path: str | None = None
    """Folder of prompt templates that are used in place of those of the same name in prompts/."""

    api_type: ApiType = "openai"
    """Who answers; anthropic and google are accepted for claude and gemini. replay answers from files."""
    model_name: str = "gpt-5-mini"
    """The model, as its service names it."""
    api_base: str | None = None
    """Address of an OpenAI-compatible server; default the service's own, or the environment's OPENAI_BASE_URL, ... It
    is api_type's: other services of models are asked at their own."""
    replay_path: str | None = None
    """replay: folder that holds {definition}/{step}.md, the raw text of one answer each; or the folder of a run, whose
    answers are given again."""
    models: dict[str, float] | None = None
    """Several models instead of model_name, each with its share; a list gives them equal ones. A name that begins with
    a service and a colon, such as claude:claude-opus-4-6, is that service's model, any other is api_type's."""
    model_choice: Literal["weights", "bandit"] = "weights"
    """Models: weights draws a step's model by its share; bandit prefers what improved most for a dollar so far."""
    temperature: float | None = Field(default=0.6, ge=0, le=2)
    """Sampling temperature; null sends none. A model that refuses it is asked without, and the answer says so."""
    max_completion_tokens: int = Field(default=16384, ge=1)
    """Upper bound of an answer's length in tokens, thinking included."""
    more_room: int = Field(default=1, ge=0, le=6)
    """How often an answer that met max_completion_tokens is asked again, with twice the room each time. All are paid
    for and kept."""
    thinking: Literal["adaptive", "disabled"] | int | None = None
    """Claude: adaptive, disabled, or for older models a budget of tokens, 1024 or more; null leaves it to the
    model."""
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    """How much the model thinks, where it lets itself be told; null leaves it to the model."""

    llm_mode: Literal["stream", "batch"] = "stream"
    """batch: questions go through the batches of claude or openai, at half the price, and may take up to 24 hours; a
    run that is killed meanwhile collects them when it goes on. For wide searches."""
    batch_poll_s: float = Field(default=30.0, gt=0)
    """batch: seconds between two looks at whether it is done."""

    max_cost: float | None = Field(default=None, gt=0)
    """US dollars that the whole run may cost, requests in flight counted at the most that they can cost. Then the
    steps that are left are not asked, and the run ends; raise it to go on. null: no bound."""
    max_cost_per_task: float | None = Field(default=None, gt=0)
    """The same for each task."""
    price: Price | dict[str, Price] | None = None
    """Price of the model, {input: USD, output: USD} per million tokens, for models that are not on the price list; of
    several models: {name: {input: USD, output: USD}}, with the names that models has."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    """Requests that all processes of this machine may send to a service in any 60 seconds; null: no bound."""
    tokens_per_minute: int | None = Field(default=None, ge=1)
    """The same for tokens: the prompt's, estimated, and max_completion_tokens until the answer's are known."""
    requests_in_flight: int | None = Field(default=None, ge=1)
    """Requests to a service that all processes of this machine may wait for at once; null: no bound."""

    eval_backend: Literal["local", "cpu", "modal"] = "local"
    """Where kernels are judged: local is a CUDA device of this machine, cpu is Triton's interpreter, modal rents one
    (docs/modal.md)."""
    modal_gpu: str = "B200"
    """modal: the GPU type to ask for."""
    modal_idle_s: int = Field(default=60, ge=2, le=1200)
    """modal: seconds that a container waits for the next kernel before it is given back; they are paid for."""
    modal_price: float | None = Field(default=None, ge=0)
    """modal: US dollars a second of the GPU, for the estimate in each verdict; null takes the list's, where it has
    one."""
    slurm_job: str | None = None
    """Options of sbatch for a job that stays and in which all kernels of the run are judged, such as --gpus=1
    --time=4:00:00 --mem=32G (docs/clusters.md); null: no such job."""
    slurm_idle_s: float = Field(default=600.0, gt=0)
    """slurm_job: seconds that the job waits for the next kernel before it gives its GPU back."""
    eval_timeout_s: float = Field(default=60.0, gt=0)
    """Seconds that building a kernel, or all calls of one workload, may take before its processes are killed."""
    baseline_author: str = "baseline"
    """Author of the dataset's solutions that the contest's score is measured against; their latency is measured with
    the reference's, where there is one."""
    confirm_draws: int = Field(default=20, ge=0, le=1000)
    """Fresh draws of the inputs on which a task's best kernels are checked at its end, before they are timed against
    each other, in turns; 0 takes the best of the verdicts as it is."""
    confirm_kernels: int = Field(default=3, ge=1, le=20)
    """How many kernels at most are timed against each other at a task's end: those within 5 % of the best."""
    memory_limit_gb: float | None = Field(default=None, gt=0)
    """Host memory that a candidate's processes may take, in GB; null is half of the machine's, or of what the SLURM job
    or the container is allowed (control groups)."""
    num_trials: int = Field(default=3, ge=1, le=100)
    """Draws of the inputs that the correctness of each workload is checked on."""
    warmup_runs: int = Field(default=10, ge=0)
    """Calls before the timed ones of each workload."""
    iterations: int = Field(default=100, ge=1)
    """Timed calls of each workload; the latency is their median."""
    timing_budget_s: float = Field(default=2.0, gt=0)
    """Seconds after which no further timed call of a workload is begun; slow kernels get fewer calls, never none."""
    atol: float = Field(default=1e-2, gt=0)
    """Absolute tolerance: an element is wrong if it is over this and over rtol."""
    rtol: float = Field(default=1e-2, gt=0)
    """Relative tolerance: an element is wrong if it is over this and over atol."""
    required_matched_ratio: float | None = Field(default=None, gt=0, le=1)
    """Share of elements that must be right; null takes flashinfer-bench's own for the definition."""
    warm: bool = True
    """Keep a process with torch and flashinfer_bench imported, and fork evaluations from it, and one with the SDKs of
    the services, and fork questions and other light jobs from that; false starts each anew."""
    warm_idle_s: float = Field(default=300.0, gt=0)
    """Seconds without an evaluation, or a light job, after which that process goes; with its run it goes anyway."""
    max_workloads: int | None = Field(default=None, ge=1)
    """Judge on the first so many workloads of each definition; null takes all."""
    reference_max_mb: int = Field(default=1024, ge=0)
    """Disk that the expected outputs of one task may take, in MB; what does not fit is computed again each time."""

    export_kernels: Literal["best", "correct", "all"] = "best"
    """export_trace: which kernels of each task; all are those with a verdict, whatever it is."""
    export_author: str | None = None
    """Who exports name as a kernel's author; default the model that wrote it."""

    level: Any = None
    """Accepted for the baseline's YAML files; without effect."""
    problem_id: Any = None
    """Accepted for the baseline's YAML files; without effect."""
    dtype_str: Any = None
    """Accepted for the baseline's YAML files; without effect."""
    debug: Any = None
    """Accepted for the baseline's YAML files; without effect."""

    @field_validator("api_type", mode="before")
    @classmethod
    def _alias(cls, value: Any) -> Any:
        return API_ALIASES.get(value, value) if isinstance(value, str) else value

    @field_validator("models", mode="before")
    @classmethod
    def _equal_shares(cls, value: Any) -> Any:
        return dict.fromkeys(value, 1.0) if isinstance(value, list) else value

    @field_validator("models")
    @classmethod
    def _shares(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        if value is not None and not (value and all(0 < share < float("inf") for share in value.values())):
            raise ValueError("must name at least one model, each with a share over 0")
        for name in value or {}:
            service, model = split_model(name)
            if service == "replay":
                raise ValueError(f"{name!r}: replay is no part of a mixture; api_type: replay answers all from files")
            if not model.strip():
                raise ValueError(f"{name!r} must name a model")
        return value

    @field_validator(
        "save_path",
        "resume_from",
        "dataset_root",
        "replay_path",
        "run",
        "api_base",
        "prompts_path",
        "lessons_from",
        "sweep_path",
        "slurm_job",
        "export_author",
    )
    @classmethod
    def _empty_is_none(cls, value: str | None) -> str | None:
        return value or None

    @field_validator("thinking")
    @classmethod
    def _budget_is_large_enough(cls, value: Any) -> Any:
        if isinstance(value, int) and value < 1024:
            raise ValueError("must be adaptive, disabled or a number of tokens, 1024 or more")
        return value

    @field_validator("run")
    @classmethod
    def _run_is_a_folder_name(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"(?!\.+$)[\w.+-]+", value):
            raise ValueError("must be one folder name of letters, digits and _ . + -")
        return value

    @field_validator("save_path")
    @classmethod
    def _results_are_no_pattern(cls, value: str | None) -> str | None:
        if value is not None and set(value) & set("{}"):
            raise ValueError("must be a folder without { and }, which are wildcards to Snakemake")
        return value

    @field_validator("test_source")
    @classmethod
    def _source_is_a_folder_name(cls, value: str) -> str:
        if not re.fullmatch(r"(?!\.+$)[\w.+-]+", value):
            raise ValueError("must be one folder name of letters, digits and _ . + -; dataset_root names any folder")
        return value

    @field_validator("model_name")
    @classmethod
    def _model_has_a_name(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("must name a model")
        return value

    @model_validator(mode="after")
    def _replays_something(self) -> Config:
        if self.api_type == "replay" and self.agent_type != "sweep" and self.replay_path is None:
            raise ValueError("replay_path: api_type replay needs the folder of the answers")
        return self

    @model_validator(mode="after")
    def _sweep_has_kernels(self) -> Config:
        if self.agent_type == "sweep" and self.sweep_path is None:
            raise ValueError("sweep_path: agent_type sweep needs the folder of the kernels that it tunes")
        for key in ("islands", "sweep_steps", "lessons_from_siblings"):
            if self.agent_type == "sweep" and getattr(self, key) != Config.model_fields[key].default:
                raise ValueError(f"{key}: is for agent_type iterative and evolve, a sweep has none")
        return self

    @model_validator(mode="after")
    def _slurm_job_has_options(self) -> Config:
        if self.slurm_job is not None and self.eval_backend == "modal":
            raise ValueError("slurm_job: is for eval_backend local and cpu, not for modal")
        try:
            shlex.split(self.slurm_job or "")
        except ValueError as error:
            raise ValueError(f"slurm_job: {self.slurm_job!r} is not a line of options: {error}") from None
        return self

    @model_validator(mode="after")
    def _models_differ(self) -> Config:
        known: dict[tuple[str, str], str] = {}
        for name in self.models or {}:
            service, model = split_model(name)
            same = known.setdefault((service or self.api_type, model), name)
            if same != name:
                raise ValueError(f"models: {same!r} and {name!r} are the same model")
        return self

    @model_validator(mode="after")
    def _api_base_is_asked(self) -> Config:
        if self.api_base is not None and self.asks_a_service and self.api_type not in self.services:
            raise ValueError(
                f"api_base: is where api_type {self.api_type} is asked, and models has none of it; others are asked "
                "where the environment says (ANTHROPIC_BASE_URL, OPENAI_BASE_URL, GEMINI_BASE_URL)"
            )
        return self

    @model_validator(mode="after")
    def _has_batches(self) -> Config:
        without = [service for service in self.services if service not in ("claude", "openai", "replay")]
        if self.llm_mode == "batch" and without:
            raise ValueError(f"llm_mode: batch is for api_type claude and openai, not for {', '.join(without)}")
        return self

    @property
    def asks_a_service(self) -> bool:
        """Whether a model is asked that wants a key."""
        return self.api_type != "replay" and self.agent_type != "sweep"

    @property
    def run_name(self) -> str:
        """The name of the run's folder: it holds neither a time nor the number of steps, so more steps extend it."""
        return self.run or f"{self.agent_type}_{self.test_source}"

    @property
    def dataset(self) -> Path:
        """The dataset's folder."""
        return Path(self.dataset_root or f"datasets/{self.test_source}")

    @property
    def results(self) -> Path:
        """The run's folder."""
        return Path(self.save_path or "results") / self.run_name

    @property
    def limits(self) -> dict[str, Any]:
        """The values of LIMITS."""
        return self.model_dump(include=set(LIMITS))

    @property
    def model_shares(self) -> dict[str, float]:
        """The models that are asked, each with its share."""
        return self.models or {self.model_name: 1.0}

    def served(self, name: str) -> tuple[str, str]:
        """Who answers for a model of ``model_shares``, and the model as its service names it.

        With ``api_type: replay`` that is replay for all: nobody is paid.
        """
        service, model = split_model(name) if self.models else (None, name)
        return (self.api_type if service is None or self.api_type == "replay" else service), model

    @property
    def services(self) -> list[str]:
        """Those who answer, each once."""
        return list(dict.fromkeys(self.served(name)[0] for name in self.model_shares))

    def base_of(self, service: str) -> str | None:
        """The address that is configured for a service: ``api_base`` is that of ``api_type``."""
        return self.api_base if service == self.api_type else None

    def prices_of(self, service: str) -> PriceOrPrices:
        """``price``, with the models of a service as it names them."""
        if not isinstance(self.price, Mapping):
            return self.price
        named = {split_model(name): price for name, price in self.price.items()}
        # A model of model_name may begin like a service.
        own = self.price if service == self.api_type else {}
        return {**own, **{model: price for (owner, model), price in named.items() if owner == service}}

    @property
    def ignored(self) -> list[str]:
        """Keys of the baseline that were given and have no effect here."""
        return [key for key in WITHOUT_EFFECT if getattr(self, key) is not None]


def load_config(values: Mapping[str, Any], origin: str = "config") -> Config:
    """Check the keys and values of a configuration.

    Raises:
        UserError: an unknown key (with the nearest known one) or a bad value (with what is allowed); all are named.
    """
    unknown = [str(key) for key in values if key not in Config.model_fields]
    faults = [f"unknown key {key!r}{_nearest(key)}" for key in unknown]
    faults += [
        f"{key}: must be a number, not {value}"
        for key, value in values.items()
        if isinstance(value, bool)
        and key in Config.model_fields
        and Config.model_fields[key].annotation in (int, float)
    ]
    try:
        config = Config.model_validate({key: value for key, value in values.items() if key in Config.model_fields})
    except ValidationError as error:
        faults.append(explain(error))
    if faults:
        raise UserError(f"{origin}: {'; '.join(faults)}; config/README.md describes every key")
    return config


def read_config(path: Path | str) -> Config:
    """Read a YAML configuration file.

    Raises:
        UserError: the file is missing, is no YAML mapping, or holds an unknown key or a bad value.
    """
    try:
        values = yaml.safe_load(read_text(path)) or {}
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: must hold `key: value` lines, not a {type(values).__name__}")
    return load_config(values, origin=str(path))


def config_yaml(config: Config) -> str:
    """The resolved configuration as YAML text: every key, in the order of :class:`Config`. It holds no secret."""
    return yaml.safe_dump(config.model_dump(), sort_keys=False, allow_unicode=True)


def config_schema() -> str:
    """The JSON schema of a configuration file, for editors: config/config.schema.json."""
    return json.dumps(Config.model_json_schema(), indent=2) + "\n"


def _nearest(key: str) -> str:
    match = difflib.get_close_matches(key, Config.model_fields, n=1)
    return f" (did you mean {match[0]!r}?)" if match else ""


def keys_table() -> str:
    """The table of all keys in config/README.md."""
    rows = ["| key | default | meaning |", "| --- | --- | --- |"]
    for key, field in Config.model_fields.items():
        allowed = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        values = f" One of {', '.join(f'`{value}`' for value in allowed)}." if allowed else ""
        default = "" if field.default is None else f"`{json.dumps(field.default)}`"
        meaning = " ".join((field.description or "").split())
        rows.append(f"| `{key}` | {default} | {meaning}{values} |")
    return "\n".join(rows) + "\n"


def write_documents(folder: Path) -> None:
    """Write what is derived from :class:`Config` into config/: config.schema.json, and the table of README.md."""
    (folder / "config.schema.json").write_text(config_schema(), encoding="utf-8")
    readme = folder / "README.md"
    head, _, rest = readme.read_text(encoding="utf-8").partition("## All keys\n")
    tail = rest[rest.index("\n## ") :]
    readme.write_text(f"{head}## All keys\n\n{keys_table()}{tail}", encoding="utf-8")


if _DOCUMENTING:
    write_documents(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parents[2] / "config")
