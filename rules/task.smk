# From the dataset to what all steps of a task read.


rule check_task:
    input:
        task_inputs,
    output:
        definition=f"{RESULTS}/{{task}}/definition.json",
        reference=f"{RESULTS}/{{task}}/reference.py",
        workloads=f"{RESULTS}/{{task}}/workloads.jsonl",
    log:
        f"{LOGS}/{{task}}/check_task.log",
    conda:
        CONDA
    params:
        code=library("check_task.py", "snakernel/dataset.py"),
        settings=settings("max_workloads"),
        op_type=lambda wildcards: task_of(wildcards).op_type,
        definition=lambda wildcards: task_of(wildcards).definition,
        files=content_of_task,
    message:
        "{wildcards.task}: checking the definition and its workloads"
    shell:
        command(
            "check_task.py",
            OF_RUN,
            "--op-type {params.op_type:q} --definition {params.definition:q}",
            f"--out {TASK_FOLDER}",
        )


rule measure_reference:
    input:
        rules.check_task.output,
        baseline=baseline_solution_of,
    output:
        reference=f"{RESULTS}/{{task}}/reference/reference.json",
        expected=directory(f"{RESULTS}/{{task}}/reference/expected"),
    log:
        f"{LOGS}/{{task}}/measure_reference.log",
    conda:
        CONDA
    resources:
        gpu=ON_GPU,
    params:
        code=library(
            "measure_reference.py",
            "snakernel/evaluation/reference.py",
            "snakernel/evaluation/inputs.py",
            "snakernel/evaluation/timing.py",
            "snakernel/evaluation/roofline.py",
        ),
        settings=settings(
            "eval_backend",
            "num_trials",
            "warmup_runs",
            "iterations",
            "timing_budget_s",
            "seed",
            "reference_max_mb",
            "baseline_author",
            *DEVICE,
        ),
    message:
        "{wildcards.task}: measuring the reference"
    shell:
        command("measure_reference.py", OF_TASK)
