# Needs Python 3.11 or newer, or uv. Installs uv into .tools/ if it is missing.
.DEFAULT_GOAL := help
.PHONY: help demo test test-fast test-containers test-kubernetes test-anywhere bench soak results check fix constraints clean

UV := $(shell command -v uv || echo .tools/bin/uv)
export PATH := $(dir $(abspath $(UV))):$(PATH)

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1 \2/p' Makefile | while read -r t d; do printf '%-17s%s\n' "$$t" "$$d"; done

demo: $(UV)  ## bake the defaults into a temporary folder and serve them
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && trap 'true' INT TERM && \
	uvx --quiet --constraints constraints.txt cookiecutter --no-input --output-dir "$$folder" . >/dev/null && \
	cd "$$folder/example-service" && uv run --quiet app dev

test: .venv  ## run every test that needs no Docker (minutes): make test quick=yes
	.venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not containers and not alone and not thorough"
	.venv/bin/python -m pytest -m "alone$(if $(quick), and not thorough)"

test-fast: .venv  ## run the tests that install nothing (seconds)
	.venv/bin/python -m pytest -n 2 --maxschedchunk 1 -m "not slow and not containers"

test-containers: .venv  ## run the container and failure tests; needs Docker (minutes): make test-containers quick=yes
	.venv/bin/python -m pytest $(if $(quick),-m "containers and not kubernetes and not thorough",-m "not kubernetes and (containers or thorough and not alone)" --measurements benchmarks/results.md)

test-kubernetes: .venv  ## run the tests on a Kubernetes cluster of this machine; needs KUBECONFIG and Docker (minutes): make test-kubernetes quick=yes
	.venv/bin/python -m pytest -m "kubernetes$(if $(quick), and not thorough)"

test-anywhere: .venv  ## run the service's tests at many times, in random order, by other users; needs root (an hour): make test-anywhere row=3
	.venv/bin/python maintenance/test_anywhere.py $(if $(row),--row $(row)) -- $(tests)

bench: .venv  ## run the benchmark; needs wrk (minutes): make bench rounds=1 before=v1.0.0
	.venv/bin/python benchmarks/run.py --rounds $(or $(rounds),3) $(if $(before),--before $(before))
	.venv/bin/python benchmarks/jobs.py --rounds $(or $(rounds),3) --page benchmarks/results.md

soak: .venv  ## run mixed load with every option; fails if memory or connections grow (minutes): make soak minutes=1
	.venv/bin/python benchmarks/soak.py --minutes $(or $(minutes),10) --page benchmarks/results.md

results:  ## run bench, test-containers and soak, which write benchmarks/results.md
	$(MAKE) bench
	$(MAKE) test-containers
	$(MAKE) soak

check: .venv  ## lint, check the format and count lines of code, here and in the template folder
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/python maintenance/count_lines.py

fix: .venv  ## format and fix lint errors, here and in the template folder
	.venv/bin/ruff format
	.venv/bin/ruff check --fix

constraints: .venv  ## update both constraints.txt; without upper bounds: make constraints bounds=lifted
	.venv/bin/python maintenance/refresh_constraints.py $(if $(filter lifted,$(bounds)),--lift-bounds)

clean:  ## remove files that git ignores
	git clean -fdXq

# Not for the environments of tests: they import a quarter of the files that uv would compile.
.venv: export UV_COMPILE_BYTECODE := 1
.venv: pyproject.toml constraints.txt $(UV)
	uv venv --quiet --clear --no-python-downloads .venv
	uv pip install --quiet --constraints constraints.txt --group dev
	@touch .venv

.tools/bin/uv:
	python3 -m pip install --quiet --disable-pip-version-check --target .tools "$$(grep ^uv== constraints.txt)"
