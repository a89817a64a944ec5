# What all rules share: the checked configuration, the tasks, and the functions that name a job's inputs.

import gc
import sys
from contextlib import suppress
from functools import cache
from os.path import exists
from pathlib import Path
from shlex import quote

import yaml
from snakemake import __version__ as snakemake_version
from snakemake.exceptions import WorkflowError

BASEDIR = Path(workflow.basedir)
SCRIPTS = BASEDIR / "scripts"
sys.path.insert(0, str(SCRIPTS))

from snakernel.config import config_yaml, load_config, read_config
from snakernel.dataset import baseline_solution, read_tasks
from snakernel.errors import UserError
from snakernel.evaluation.modal_backend import check_gpu, check_modal
from snakernel.evaluation.slurm import check_slurm, release
from snakernel.evaluation.verdict import Evaluation
from snakernel.files import (
    bring_back_times,
    digest,
    digest_texts,
    read_model,
    write_text,
)
from snakernel.jobs import set_job_environment
from snakernel.llm.providers import check_budget, check_services
from snakernel.prompts import (
    check_lessons,
    check_templates,
    find_lessons,
)
from snakernel.report.starts import record_start
from snakernel.report.terminal import finish, watch_run
from snakernel.search import create_strategy
from snakernel.search.trials import given_kernel, given_tunables
from snakernel.skipping import skip_reason

try:
    SETTINGS = load_config(config)
    check_templates(SETTINGS)
    check_lessons(SETTINGS)
    check_budget(SETTINGS)
    if SETTINGS.eval_backend == "modal":
        check_gpu(SETTINGS)
    TASKS = {
        task.name: task
        for task in read_tasks(Path(SETTINGS.tasks_path), SETTINGS.dataset)
    }
    if SETTINGS.resume_from:
        from snakernel.baseline import import_answers, task_folders

        task_folders(SETTINGS, TASKS.values())
    if SETTINGS.agent_type == "sweep":
        for task in TASKS.values():
            given_tunables(SETTINGS, task.name, task.definition)
except UserError as error:
    raise WorkflowError(str(error)) from None

RESULTS = str(SETTINGS.results)
CONFIG = f"{RESULTS}/config.yaml"
LIMITS_FILE = f"{RESULTS}/limits.yaml"
LOGS = f"{RESULTS}/logs"
# How commands name the run and the task. They are no parameters: those cost planning time in every job.
OF_RUN = f"--config {quote(CONFIG)}"
TASK_FOLDER = f"{quote(RESULTS)}/{{wildcards.task:q}}"
OF_TASK = f"{OF_RUN} --task-folder {TASK_FOLDER}"
STRATEGY = create_strategy(SETTINGS, "")
ASKED = (
    "the optimiser"
    if SETTINGS.agent_type == "sweep"
    else " or ".join(SETTINGS.model_shares)
)
CONDA = "../environment.yml"
ON_GPU = 0 if SETTINGS.eval_backend == "cpu" else 1
# A reference is of one kind of device: with another one to rent, it is measured again.
DEVICE = ("modal_gpu",) if SETTINGS.eval_backend == "modal" else ()

# A plan is millions of objects that all stay: looking for garbage among them is a tenth of the planning time. It is
# looked for again when jobs begin.
gc.disable()

set_job_environment(SCRIPTS)
watch_run(workflow, SETTINGS, list(TASKS.values()))


wildcard_constraints:
    task=r"[^/]+",
    step=r"[1-9]\d*",


def command(script, *arguments):
    """The shell command of a job: a script's, whose output goes to the log."""
    return (
        f'python "$SNAKERNEL_SCRIPTS/{script}" {" ".join(arguments)} > {{log:q}} 2>&1'
    )


def library(*names):
    """Content hash of parts of scripts/: the code that a derived rule runs, as a parameter that reruns it."""
    return digest(*(SCRIPTS / name for name in names))


def settings(*keys):
    """The values of configuration keys, as a parameter that reruns a derived rule when one of them changes."""
    return {key: getattr(SETTINGS, key) for key in keys}


def task_of(wildcards):
    """The task that a job belongs to."""
    if wildcards.task not in TASKS:
        raise WorkflowError(
            f"{SETTINGS.tasks_path} names no task {wildcards.task!r}; its tasks are: {', '.join(TASKS)}"
        )
    return TASKS[wildcards.task]


def task_inputs(wildcards):
    """A task's files in the dataset. One that is missing is the script's to name: it fails its own task only."""
    task = task_of(wildcards)
    files = [
        task.definition_path(SETTINGS.dataset),
        task.workloads_path(SETTINGS.dataset),
    ]
    return [str(file) for file in files if file.exists()]


def content_of_task(wildcards):
    """Content hash of a task's files in the dataset: one that is edited while it is read has an older time than what is
    made of it. One that cannot be read is the script's to name."""
    texts = []
    for file in task_inputs(wildcards):
        with suppress(OSError):
            texts.append(Path(file).read_bytes().decode("latin-1"))
    return digest_texts(texts)


def baseline_solution_of(wildcards):
    """The dataset's baseline solution of a task's definition, whose latency is measured; nothing where it has none."""
    task = task_of(wildcards)
    found = baseline_solution(
        SETTINGS.dataset, task.op_type, task.definition, SETTINGS.baseline_author
    )
    return [str(found)] if found else []


def state_before(wildcards):
    """The state that a step's verdict is added to: selection goes on in the order of the steps."""
    before = int(wildcards.step) - 1
    return f"{RESULTS}/{wildcards.task}/step_{before}/best.json" if before else []


@cache
def siblings_to_show(task):
    """What a task's proposals are shown of the run's own tasks before it, and wait for: the same in all of its steps.

    Kernels of another run are no inputs: it is finished, and naming other ones is for steps that are not answered yet.
    """
    folders = find_lessons(SETTINGS, list(TASKS.values()), TASKS[task])
    own = [folder for folder in folders if folder.parent == SETTINGS.results]
    return expand(
        "{folder}/{name}",
        folder=own,
        name=("definition.json", "best/kernel.py", "best/evaluation.json"),
    )


def exported(wildcards):
    """What an export is made of: each task's best kernel, and all verdicts, which may be made again."""
    steps = range(1, STRATEGY.steps + 1)
    return [
        *expand(f"{RESULTS}/{{task}}/best/evaluation.json", task=TASKS),
        *expand(
            f"{RESULTS}/{{task}}/step_{{step}}/evaluation.json", task=TASKS, step=steps
        ),
    ]


def kernel_to_sweep(wildcards):
    """The kernel of the user's that a sweep's first steps are made of."""
    if STRATEGY.tunes(int(wildcards.step)):
        return []
    return [str(given_kernel(SETTINGS, wildcards.task, task_of(wildcards).definition))]


def inputs_of_proposal(wildcards):
    """What a step's prompt and kernel are made of.

    Once the step is answered, what its prompt is made of are files that no rule makes and that are never too new. So no
    changed state, limit or renewed mtime can ask a model again, and prompt.md stays what was sent. A step that was
    skipped is not answered: it is asked when a change of the limits or of the state says so.
    """
    task, step = wildcards.task, int(wildcards.step)
    is_old = is_answered(task, step)

    def until_answered(*files):
        return [
            before_update(ancient(file)) if is_old and exists(file) else file
            for file in files
        ]

    read = STRATEGY.reads(step)
    # A state is made of verdicts, and they of the reference: an edge costs planning time in every step.
    first = [] if read else [f"{RESULTS}/{task}/reference/reference.json"]
    siblings = (
        siblings_to_show(task_of(wildcards).name)
        if SETTINGS.lessons_from_siblings
        else []
    )
    given = kernel_to_sweep(wildcards) if SETTINGS.agent_type == "sweep" else []
    return {
        "state": (
            until_answered(f"{RESULTS}/{task}/step_{read}/best.json") if read else []
        ),
        "others": until_answered(LIMITS_FILE, *first, *siblings, *given),
        "kernels": [
            f"{RESULTS}/{task}/step_{one}/kernel.py"
            for one in STRATEGY.kernels_read(step)
        ],
    }


def is_answered(task, step):
    """Whether the journal has the answer to a step."""
    return exists(f"{RESULTS}/answers/{task}/{step}.json")


def best_kernel_labels(wildcards):
    """What Snakemake's report shows in its lists beside a task's best kernel."""
    verdict = read_model(f"{RESULTS}/{wildcards.task}/best/evaluation.json", Evaluation)
    speedup = (
        "no correct kernel" if verdict.speedup is None else f"{verdict.speedup:.3g}x"
    )
    return {"task": wildcards.task, "speedup": speedup}


def show_summary():
    """Print the table of what the run has reached."""
    finish(workflow)
    shell(f'python "$SNAKERNEL_SCRIPTS/summarize.py" {OF_RUN} --show')


def limits_of_last_run():
    """The limits that the run had when it was last started; nothing if it never was."""
    try:
        return read_config(CONFIG).limits if exists(CONFIG) else None
    except UserError:
        return None


def check_key():
    """Where services will be asked, their keys must be there before anything runs; a finished run needs none."""
    same_limits = limits_of_last_run() == SETTINGS.limits
    settled = all(
        is_answered(task, step)
        or (same_limits and skip_reason(Path(f"{RESULTS}/{task}/step_{step}")))
        for task in TASKS
        for step in range(1, STRATEGY.steps + 1)
    )
    if SETTINGS.asks_a_service and not settled:
        try:
            check_services(SETTINGS)
        except UserError as error:
            raise WorkflowError(str(error)) from None


def check_device():
    """Where Modal or SLURM gives the GPU, it must be there to ask before anything runs; a finished run needs none."""
    finished = all(exists(f"{RESULTS}/{task}/best/confirmation.json") for task in TASKS)
    if not finished:
        try:
            if SETTINGS.eval_backend == "modal":
                check_modal(SETTINGS)
            if SETTINGS.slurm_job:
                check_slurm(SETTINGS)
        except UserError as error:
            raise WorkflowError(str(error)) from None


def import_earlier():
    """Make the answers of a run of the baseline's the first steps of this one, before anyone is asked."""
    try:
        for line in import_answers(SETTINGS, TASKS.values()):
            print(line, file=sys.stderr)
    except UserError as error:
        raise WorkflowError(str(error)) from None


onstart:
    gc.freeze()
    gc.enable()
    if SETTINGS.resume_from:
        import_earlier()
    check_key()
    check_device()
    if count := bring_back_times(RESULTS):
        print(
            f"note: the clock was set back: {count} files of {RESULTS} were of the future, and are of now",
            file=sys.stderr,
        )
    write_text(CONFIG, config_yaml(SETTINGS))
    record_start(SETTINGS.results, snakemake_version, sys.argv[1:])
    for key in SETTINGS.ignored:
        print(
            f"note: the configuration key {key!r} has no effect here",
            file=sys.stderr,
        )


onsuccess:
    release(SETTINGS)
    show_summary()


onerror:
    release(SETTINGS)
    show_summary()
