# A step's verdict.


rule evaluate:
    input:
        rules.check_task.output,
        rules.measure_reference.output.reference,
        kernel=rules.extract_kernel.output.kernel,
    output:
        f"{RESULTS}/{{task}}/step_{{step}}/evaluation.json",
    log:
        f"{LOGS}/{{task}}/step_{{step}}/evaluate.log",
    benchmark:
        f"{LOGS}/{{task}}/step_{{step}}/evaluate.tsv"
    params:
        code=library("evaluate.py", "snakernel/evaluation"),
        settings=settings("atol", "rtol", "required_matched_ratio", "eval_timeout_s"),
    resources:
        gpu=ON_GPU,
    message:
        "{wildcards.task} step {wildcards.step}: judging the kernel"
    shell:
        "{PYTHON} {SCRIPTS}/evaluate.py --config {CONFIG} --task-folder {RESULTS}/{wildcards.task} "
        "--kernel {input.kernel} --out {output} > {log} 2>&1"
