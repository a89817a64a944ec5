# The state of the search after a step, and a task's best kernel after the last one.


rule select_best:
    input:
        response=rules.propose.output.response,
        evaluation=rules.evaluate.output,
        extraction=rules.propose.output.extraction,
        state=state_before,
    output:
        f"{RESULTS}/{{task}}/step_{{step}}/best.json",
    log:
        f"{LOGS}/{{task}}/step_{{step}}/select_best.log",
    conda:
        CONDA
    params:
        code=library("select_best.py", "snakernel/search", "snakernel/skipping.py"),
        settings=settings(
            "agent_type",
            "parallel_proposals",
            "islands",
            "migrate_every",
            "max_memory_round",
            "filter_wrong_attempts",
            "tune_from",
            "pool_size",
            "softmax_temperature",
            "refine_steps",
            "sweep_steps",
            "seed",
            "planner",
            "stop_at_speedup",
            "patience",
        ),
    message:
        "{wildcards.task} step {wildcards.step}: selecting the best so far"
    shell:
        command(
            "select_best.py",
            OF_TASK,
            "--step {wildcards.step} --state {input.state:q}",
        )


rule confirm_best:
    input:
        rules.check_task.output,
        rules.measure_reference.output.reference,
        f"{RESULTS}/{{task}}/step_{STRATEGY.steps}/best.json",
    output:
        f"{RESULTS}/{{task}}/best/confirmation.json",
    log:
        f"{LOGS}/{{task}}/confirm_best.log",
    conda:
        CONDA
    resources:
        gpu=ON_GPU,
    params:
        code=library(
            "confirm_best.py",
            "evaluator.py",
            "snakernel/evaluation",
            "snakernel/processes.py",
            "snakernel/warm.py",
            "snakernel/warm_parent.py",
        ),
        settings=settings("confirm_draws", "confirm_kernels"),
        steps=STRATEGY.steps,
    message:
        "{wildcards.task}: checking the best kernels once more"
    shell:
        command("confirm_best.py", OF_TASK, "--step {params.steps}")


rule export_best:
    input:
        f"{RESULTS}/{{task}}/step_{STRATEGY.steps}/best.json",
        confirmation=rules.confirm_best.output,
    output:
        kernel=report(
            f"{RESULTS}/{{task}}/best/kernel.py",
            caption="../report/kernel.rst",
            category="Best kernels",
            labels=best_kernel_labels,
        ),
        evaluation=f"{RESULTS}/{{task}}/best/evaluation.json",
        solution=report(
            f"{RESULTS}/{{task}}/best/solution.json",
            caption="../report/kernel.rst",
            category="Best solutions",
            labels=best_kernel_labels,
        ),
    log:
        f"{LOGS}/{{task}}/export_best.log",
    conda:
        CONDA
    params:
        code=library("export_best.py", "snakernel/evaluation/solution.py"),
        steps=STRATEGY.steps,
    message:
        "{wildcards.task}: exporting the best kernel"
    shell:
        command(
            "export_best.py", f"--task-folder {TASK_FOLDER}", "--step {params.steps}"
        )
