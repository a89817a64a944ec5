# A step's question, its answer, and the kernel in it.


rule write_prompt:
    input:
        reference=rules.measure_reference.output.reference,
        state=state_to_show,
        lessons=lessons_to_show if LESSONS else [],
        given=kernel_to_sweep if SETTINGS.agent_type == "sweep" else [],
    output:
        prompt=f"{RESULTS}/{{task}}/step_{{step}}/prompt.md",
        question=f"{RESULTS}/{{task}}/step_{{step}}/prompt.json",
    log:
        f"{LOGS}/{{task}}/step_{{step}}/write_prompt.log",
    conda:
        CONDA
    params:
        config=CONFIG,
        folder=task_folder,
        code=library(
            "write_prompt.py",
            "snakernel/prompts.py",
            "snakernel/feedback.py",
            "snakernel/search",
            "snakernel/skipping.py",
        ),
        lessons=lesson_folders,
        templates=digest(*template_files(SETTINGS)),
        settings=settings(
            "gpu_name",
            "gpu_architecture",
            "atol",
            "rtol",
            "planner",
            "feedback",
            "models",
            "model_choice",
            *LIMITS,
        ),
    message:
        "{wildcards.task} step {wildcards.step}: writing the prompt"
    shell:
        'python "$SNAKERNEL_SCRIPTS"/write_prompt.py --config {params.config:q} --task-folder {params.folder:q} '
        "--step {wildcards.step} --state {input.state:q} --lessons {params.lessons:q} --out {output.prompt:q} > {log:q} 2>&1"


# No parameters: a model, a temperature or a key of another kind that changes is for steps that are not answered yet.
rule propose:
    input:
        prompt=prompt_to_answer("prompt.md"),
        question=prompt_to_answer("prompt.json"),
    output:
        f"{RESULTS}/{{task}}/step_{{step}}/response.json",
    log:
        f"{LOGS}/{{task}}/step_{{step}}/propose.log",
    conda:
        CONDA
    threads: 0
    resources:
        llm=1,
    params:
        config=CONFIG,
        folder=task_folder,
        definition=lambda wildcards: task_of(wildcards).definition,
    message:
        "{wildcards.task} step {wildcards.step}: asking {ASKED}"
    shell:
        'python "$SNAKERNEL_SCRIPTS"/propose.py --config {params.config:q} --task-folder {params.folder:q} '
        "--definition {params.definition:q} --step {wildcards.step} --prompt {input.prompt:q} --out {output:q} > {log:q} 2>&1"


rule extract_kernel:
    input:
        rules.propose.output,
        kernels=kernels_to_read,
    output:
        kernel=f"{RESULTS}/{{task}}/step_{{step}}/kernel.py",
        extraction=f"{RESULTS}/{{task}}/step_{{step}}/extraction.json",
    log:
        f"{LOGS}/{{task}}/step_{{step}}/extract_kernel.log",
    conda:
        CONDA
    params:
        folder=task_folder,
        config=CONFIG,
        code=library(
            "extract_kernel.py", "snakernel/extraction.py", "snakernel/skipping.py"
        ),
        settings=settings("reject_duplicates"),
    message:
        "{wildcards.task} step {wildcards.step}: taking the kernel out of the answer"
    shell:
        'python "$SNAKERNEL_SCRIPTS"/extract_kernel.py --config {params.config:q} --task-folder {params.folder:q} '
        "--step {wildcards.step} > {log:q} 2>&1"
