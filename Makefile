# Two commands do everything: `make demo` shows the main job, `make test` proves it. Each makes its own environment in .venv.
PYTHON ?= python3
BIN := .venv/bin
CHECK_PYTHON = $(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or later is needed; name one: make PYTHON=python3.12 ...")'
REGIONS := cn-north-1 cn-northwest-1 us-west-2

.PHONY: demo test coverage e2e simulate fuzz bench docs site requirements templates bundle release check format clean

demo: .venv/.demo
	$(BIN)/image-mirror demo

test: .venv/.dev
	$(BIN)/pytest --numprocesses auto

# Branches of the pure core that the tests of the functions' modules run. The coverage is printed; there is no minimum.
CORE := reference rules decisions review pod_images admission messages record lifecycle build_result settings
coverage: .venv/.dev
	COVERAGE_FILE=.pytest_cache/coverage $(BIN)/pytest --numprocesses auto --quiet --cov-branch --cov-report term-missing \
		$(CORE:%=--cov image_mirror.%) tests/unit/test_*.py

# Real programs: a control plane (KUBEBUILDER_ASSETS), crane, skopeo, docker-registry, the AWS CLI, the SAM CLI, Java. Tests of
# a program that is missing are skipped with the reason; with CI=true they fail.
e2e: .venv/.dev .venv-sam/.done .venv-aws/.done .venv-site/.done .dynamodb-local/.done
	PATH="$(CURDIR)/.venv-aws/bin:$$PATH" PYTHONPATH=tests $(BIN)/pytest -p e2e.harness.stage --numprocesses auto --dist loadfile tests/e2e

# The product's own code against a model of AWS, in virtual time, with faults. The same seed gives the same run.
simulate: .venv/.dev
	$(BIN)/pytest --numprocesses auto tests/simulation

# Hostile input, guided by coverage; `make test` has tests by hypothesis too. Longer: make fuzz FUZZ_SECONDS=600
FUZZ_SECONDS ?= 20
fuzz: .venv/.dev
	PYTHONPATH=tests $(BIN)/python -m fuzz --seconds $(FUZZ_SECONDS)

# Ratios measured side by side in one run; docs/performance.md says what they mean. ARGS=--write writes them into it,
# ARGS=--help lists other options. Without podman, skopeo or docker-registry some rows are missing; the reason is printed.
bench: .venv/.dev .venv-aws/.done
	PATH="$(CURDIR)/.venv-aws/bin:$$PATH" PYTHONPATH=.:tests $(BIN)/python -m benchmarks $(ARGS)

# Generates docs/ files from the code: a page for each command, the tables of docs/cost.md, the files for Grafana and
# Prometheus, pictures of a terminal.
docs: .venv/.dev
	PYTHONPATH=.:tests $(BIN)/python -m tools.commands_page
	PYTHONPATH=.:tests $(BIN)/python -m tools.cost_page
	PYTHONPATH=.:tests $(BIN)/python -m tools.grafana_dashboard
	PYTHONPATH=.:tests $(BIN)/python -m tools.yace_config
	WRITE=1 $(BIN)/pytest --quiet --numprocesses 0 tests/unit/docs/test_pictures.py

# The pages as a site, in build/site; they are written to be read without it, on GitHub and Gitee.
site: .venv-site/.done
	.venv-site/bin/sphinx-build -W --keep-going -q -d build/site-read -c tools/site . build/site
	@echo "$(CURDIR)/build/site/index.html"

# Pins the functions' packages, with hashes, from the ranges in src/requirements.in; newer versions: ARGS=--upgrade
requirements: .venv/.dev
	$(BIN)/uv pip compile --quiet --no-header --python-version 3.13 --generate-hashes $(ARGS) \
		src/requirements.in -o src/requirements.txt

# Puts the build, the files of buildspec/, into image-pulling.yaml, which must be one file for CloudFormation. `make test`
# fails if this was forgotten, and `make e2e` runs shellcheck; to run it alone: shellcheck buildspec/*.sh
templates: .venv/.dev
	PYTHONPATH=.:tests $(BIN)/python -m tools.put_buildspec_into_template

# One zip in dist/ that deploys with the AWS CLI alone (docs/bundle.md), and the command's wheel. Needs Python 3.13 with pip.
bundle: .venv/.dev
	PYTHONPATH=.:tests $(BIN)/python -m tools.bundle

# The same for a release: checks the version, the changelog and the tree first. Publishes nothing; CONTRIBUTING.md has the recipe.
release: .venv/.dev
	PYTHONPATH=.:tests $(BIN)/python -m tools.release

check: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy src/image_mirror src/bundle.py buildspec/copy.py tests tools benchmarks
	$(BIN)/lint-imports
	$(BIN)/codespell --toml pyproject.toml --check-hidden $(wildcard .github) *.md *.yaml docs src buildspec tools tests benchmarks
	$(BIN)/cfn-lint --regions $(REGIONS) -- sam-template.yaml image-pulling.yaml docs/alarms-to-chat.yaml

format: .venv/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build dist .venv .venv-sam .venv-aws .venv-site .dynamodb-local .aws-sam .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# An environment is emptied before it is made. If it is a link, that would empty what other checkouts use.
define NO_LINK
@test ! -L $(@D) || { echo "$(@D) is a link, and would be emptied where it leads to: remove the link"; exit 1; }
endef

.venv/.demo: pyproject.toml
	$(NO_LINK)
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --editable '.[demo]'
	touch $@

.venv/.dev: pyproject.toml
	$(NO_LINK)
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --editable '.[demo,dev]'
	touch .venv/.demo $@

# Separate environments: two commands pin their packages, and only the site needs Sphinx. If one cannot be installed, its tests are skipped.
.venv-aws/.done:
	$(PYTHON) -m venv .venv-aws
	if .venv-aws/bin/pip install --quiet awscli; then touch $@; fi

.venv-sam/.done:
	$(PYTHON) -m venv .venv-sam
	if .venv-sam/bin/pip install --quiet aws-sam-cli; then touch $@; fi

.venv-site/.done: pyproject.toml
	$(NO_LINK)
	$(PYTHON) -m venv --clear .venv-site
	if .venv-site/bin/pip install --quiet '.[site]'; then touch $@; fi

.dynamodb-local/.done: tests/e2e/fakes/dynamodb_local.xml
	mkdir -p .dynamodb-local
	if mvn --quiet --file $< dependency:copy-dependencies -DoutputDirectory="$(CURDIR)/.dynamodb-local"; then touch $@; fi
