# A step's question, its answer, and the kernel in it.


# What a step that was not asked depends on beside its state: when it changes, the step is asked.
rule limits:
    output:
        LIMITS_FILE,
    log:
        f"{LOGS}/limits.log",
    conda:
        CONDA
    params:
        limits=yaml.safe_dump(SETTINGS.limits),
    message:
        "writing the limits of the search down"
    shell:
        "printf %s {params.limits:q} > {output:q} 2> {log:q}"


# No parameters but those of the kernel's extraction, which is done again from the answer that is kept: a model, a
# template or a key of another kind that changes is for steps that are not answered yet.
rule propose:
    input:
        unpack(inputs_of_proposal),
    output:
        prompt=f"{RESULTS}/{{task}}/step_{{step}}/prompt.md",
        question=f"{RESULTS}/{{task}}/step_{{step}}/prompt.json",
        response=f"{RESULTS}/{{task}}/step_{{step}}/response.json",
        kernel=f"{RESULTS}/{{task}}/step_{{step}}/kernel.py",
        extraction=f"{RESULTS}/{{task}}/step_{{step}}/extraction.json",
    log:
        f"{LOGS}/{{task}}/step_{{step}}/propose.log",
    conda:
        CONDA
    threads: 0
    resources:
        llm=1,
    params:
        code=library("snakernel/extraction.py", "snakernel/kernel.py"),
        settings=settings("reject_duplicates"),
    message:
        "{wildcards.task} step {wildcards.step}: asking {ASKED}"
    shell:
        command(
            "propose.py",
            OF_TASK,
            "--step {wildcards.step} --state {input.state:q}",
        )
