# A step's question, its answer, and the kernel in it.


rule write_prompt:
    input:
        rules.check_task.output,
        reference=rules.measure_reference.output.reference,
        state=state_before,
    output:
        f"{RESULTS}/{{task}}/step_{{step}}/prompt.md",
    log:
        f"{LOGS}/{{task}}/step_{{step}}/write_prompt.log",
    params:
        code=library("write_prompt.py", "snakernel/prompts.py", "snakernel/search"),
        templates=digest(*template_files(SETTINGS)),
        settings=settings("gpu_name", "gpu_architecture"),
    message:
        "{wildcards.task} step {wildcards.step}: writing the prompt"
    shell:
        "{PYTHON} {SCRIPTS}/write_prompt.py --config {CONFIG} --task-folder {RESULTS}/{wildcards.task} "
        "--step {wildcards.step} --out {output} > {log} 2>&1"


# No parameters: a model, a temperature or a key of another kind that changes is for steps that are not answered yet.
rule propose:
    input:
        prompt=prompt_to_answer,
    output:
        f"{RESULTS}/{{task}}/step_{{step}}/response.json",
    log:
        f"{LOGS}/{{task}}/step_{{step}}/propose.log",
    params:
        definition=lambda wildcards: task_of(wildcards).definition,
    threads: 0
    resources:
        llm=1,
    message:
        "{wildcards.task} step {wildcards.step}: asking {SETTINGS.model_name}"
    shell:
        "{PYTHON} {SCRIPTS}/propose.py --config {CONFIG} --task-folder {RESULTS}/{wildcards.task} "
        "--definition {params.definition} --step {wildcards.step} --prompt {input.prompt} --out {output} > {log} 2>&1"


rule extract_kernel:
    input:
        rules.propose.output,
        state=state_before,
    output:
        kernel=f"{RESULTS}/{{task}}/step_{{step}}/kernel.py",
        extraction=f"{RESULTS}/{{task}}/step_{{step}}/extraction.json",
    log:
        f"{LOGS}/{{task}}/step_{{step}}/extract_kernel.log",
    params:
        code=library("extract_kernel.py", "snakernel/extraction.py"),
    message:
        "{wildcards.task} step {wildcards.step}: taking the kernel out of the answer"
    shell:
        "{PYTHON} {SCRIPTS}/extract_kernel.py --config {CONFIG} --task-folder {RESULTS}/{wildcards.task} "
        "--step {wildcards.step} > {log} 2>&1"
