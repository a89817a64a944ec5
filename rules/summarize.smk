# The whole run in one table.


rule summarize:
    input:
        expand(rules.export_best.output.evaluation, task=TASKS),
    output:
        csv=f"{RESULTS}/summary.csv",
        json=f"{RESULTS}/summary.json",
    log:
        f"{LOGS}/summarize.log",
    conda:
        CONDA
    params:
        code=library("summarize.py", "snakernel/summary.py"),
        tasks=list(TASKS),
        steps=STRATEGY.steps,
    message:
        "summarising {RESULTS}"
    shell:
        command("summarize.py", OF_RUN)
