# What a person looks at; `snakemake --report report.html` takes report/start.html for its start page.

TEMPLATES = SCRIPTS / "snakernel" / "report" / "templates"


rule write_report:
    input:
        rules.summarize.output.json,
        expand(rules.export_best.output.evaluation, task=TASKS),
    output:
        page=f"{RESULTS}/report/index.html",
        start=f"{RESULTS}/report/start.html",
        provenance=report(
            f"{RESULTS}/ro-crate-metadata.json",
            caption="../report/provenance.rst",
            category="Provenance",
            labels={"file": "RO-Crate of the run"},
        ),
    log:
        f"{LOGS}/write_report.log",
    conda:
        CONDA
    params:
        code=library("write_report.py", "snakernel/report", "snakernel/summary.py"),
        templates=digest(*sorted(TEMPLATES.iterdir())),
    message:
        "writing the report of {RESULTS}"
    shell:
        command("write_report.py", OF_RUN)
