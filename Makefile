# `make demo` and `make test` do all their own set-up in .venv.
PYTHON ?= python3
CORES ?= $(shell nproc)
BIN := .venv/bin

.PHONY: demo test test-slow test-faults test-looks test-slurm screenshots lint format config-docs clean

demo: .venv/demo-ready
	$(BIN)/snakemake --cores $(CORES) --resources gpu=1

test: .venv/test-ready
	$(BIN)/python -m pytest -n $(CORES) --dist worksteal

# Cases that `make test` leaves out for its time.
test-slow: .venv/test-ready
	$(BIN)/python -m pytest -n $(CORES) --dist worksteal -m slow

# Whole runs against a service that fails, and every other fault, many times: some 40 minutes on an idle machine. The
# table of docs/faults.md is what it finds.
test-faults: .venv/test-ready
	FAULTS_TABLE=docs/faults.md $(BIN)/python -m pytest -n 0 -s -m faults tests/faults

# What a person sees, in Debian's chromium and tmux: apt-get install chromium tmux
test-looks: .venv/looks-ready
	$(BIN)/python -m pytest -m looks

# The workflow on a SLURM of one node, set up and taken down, as root: apt-get install slurm-wlm munge
test-slurm: .venv/slurm-ready
	$(BIN)/python -m pytest -n 0 -m slurm tests/slurm

# The pictures of README.md, of the demo's results.
screenshots: .venv/looks-ready demo
	$(BIN)/python docs/screenshots.py

lint: .venv/test-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint

format: .venv/test-ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile rules

# The stamp holds the requirements that were installed: a changed pin installs again, a renewed mtime does not.
.venv/demo-ready: requirements.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@cmp -s requirements.txt $@ || $(BIN)/pip install --quiet --requirement requirements.txt
	@cp requirements.txt $@

.venv/test-ready: .venv/demo-ready requirements-dev.txt
	@cmp -s requirements-dev.txt $@ || $(BIN)/pip install --quiet --requirement requirements-dev.txt
	@cp requirements-dev.txt $@

.venv/looks-ready: .venv/test-ready requirements-looks.txt
	@cmp -s requirements-looks.txt $@ || $(BIN)/pip install --quiet --requirement requirements-looks.txt
	@cp requirements-looks.txt $@

.venv/slurm-ready: .venv/test-ready requirements-slurm.txt
	@cmp -s requirements-slurm.txt $@ || $(BIN)/pip install --quiet --requirement requirements-slurm.txt
	@cp requirements-slurm.txt $@

# After a change of scripts/snakernel/config.py: the schema, and the table of keys in config/README.md.
config-docs: .venv/demo-ready
	cd scripts && ../$(BIN)/python -m snakernel.config

# Results are never removed: they hold answers that were paid for.
clean:
	rm -rf .pytest_cache .ruff_cache
