# A step's verdict. Inputs are what it depends on directly: an edge costs planning time in every step, and what comes
# through the reference or the kernel (the task's files, the answer) renews those first. Files beside them that were
# taken away are made again as inputs of select_best and confirm_best.


rule evaluate:
    input:
        rules.measure_reference.output.reference,
        kernel=rules.propose.output.kernel,
    output:
        f"{RESULTS}/{{task}}/step_{{step}}/evaluation.json",
    log:
        f"{LOGS}/{{task}}/step_{{step}}/evaluate.log",
    conda:
        CONDA
    resources:
        gpu=ON_GPU,
    params:
        code=library(
            "evaluate.py",
            "evaluator.py",
            "profiler.py",
            "snakernel/evaluation",
            "snakernel/processes.py",
            "snakernel/warm.py",
            "snakernel/warm_parent.py",
            "snakernel/skipping.py",
        ),
        settings=settings(
            "atol",
            "rtol",
            "required_matched_ratio",
            "eval_timeout_s",
            "memory_limit_gb",
        ),
    message:
        "{wildcards.task} step {wildcards.step}: judging the kernel"
    shell:
        command("evaluate.py", OF_TASK, "--kernel {input.kernel:q} --out {output:q}")
