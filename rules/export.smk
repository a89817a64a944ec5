# What was found, in the forms in which others use it. None is made unless it is asked for by its rule's name.


rule export_trace:
    input:
        exported,
    output:
        directory(f"{RESULTS}/exports/flashinfer-trace"),
    log:
        f"{LOGS}/export_trace.log",
    conda:
        CONDA
    params:
        code=library("export_trace.py", "snakernel/exports"),
        settings=settings("export_kernels", "export_author"),
    message:
        "exporting solutions and traces to {output}"
    shell:
        command("export_trace.py", OF_RUN, "--out {output:q}")


rule export_contest:
    input:
        exported,
    output:
        directory(f"{RESULTS}/exports/contest"),
    log:
        f"{LOGS}/export_contest.log",
    conda:
        CONDA
    params:
        code=library("export_contest.py", "snakernel/exports"),
        settings=settings("export_author"),
    message:
        "exporting submissions to {output}"
    shell:
        command("export_contest.py", OF_RUN, "--out {output:q}")


rule export_baseline_layout:
    input:
        exported,
    output:
        directory(f"{RESULTS}/exports/baseline"),
    log:
        f"{LOGS}/export_baseline_layout.log",
    conda:
        CONDA
    params:
        code=library("export_baseline_layout.py", "snakernel/baseline.py"),
    message:
        "exporting the run in the baseline's layout to {output}"
    shell:
        command("export_baseline_layout.py", OF_RUN, "--out {output:q}")


rule export_crate:
    input:
        exported,
        rules.summarize.output,
    output:
        f"{RESULTS}/exports/{SETTINGS.run_name}.crate.zip",
    log:
        f"{LOGS}/export_crate.log",
    conda:
        CONDA
    params:
        code=library(
            "export_crate.py", "snakernel/exports/crate.py", "snakernel/report"
        ),
    message:
        "exporting the run as an RO-Crate to {output}"
    shell:
        command("export_crate.py", OF_RUN, "--out {output:q}")
