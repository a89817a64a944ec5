# snakernel: language models write GPU kernels, FlashInfer-Bench judges them.
#
# results/{run}/{task}/step_{n}/ holds prompt.md, response.json, kernel.py, evaluation.json and best.json: a step's
# question, answer, candidate, verdict, and the state of the search after it. Rule propose makes the first three,
# evaluate the verdict and select_best the state. Each rule has a script of the same name in scripts/, and what they
# share is scripts/snakernel.
# README.md says how to use it, config/README.md describes every key.

from snakemake.utils import min_version

min_version("9.27.1")


report: "report/workflow.rst"


# Used only where the command line names no configuration, so that its keys never mix with a user's own.
if not workflow.overwrite_configfiles:

    configfile: "config/config.yaml"


include: "rules/common.smk"
include: "rules/task.smk"
include: "rules/propose.smk"
include: "rules/evaluate.smk"
include: "rules/select.smk"
include: "rules/summarize.smk"
include: "rules/report.smk"
include: "rules/export.smk"


# On a cluster these run where the workflow was started: what asks a model needs a network and no GPU, the rest is light.
localrules:
    all,
    check_task,
    limits,
    propose,
    select_best,
    export_best,
    summarize,
    write_report,
    export_trace,
    export_contest,
    export_baseline_layout,
    export_crate,


if SETTINGS.eval_backend == "modal" or SETTINGS.slurm_job:

    localrules:
        measure_reference,
        evaluate,
        confirm_best,


rule all:
    default_target: True
    input:
        f"{RESULTS}/summary.csv",
        f"{RESULTS}/summary.json",
        f"{RESULTS}/report/index.html",
