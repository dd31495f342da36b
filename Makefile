# Two commands do everything: `make demo` installs and runs the main job, `make test` passes the tests.

PYTHON ?= python3
VENV ?= .venv

.PHONY: demo test check clean

demo: $(VENV)/.installed
	@$(VENV)/bin/qcnode demo

test: $(VENV)/.installed-test
	$(VENV)/bin/python -m pytest

check: $(VENV)/.installed-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

# pip goes into the environment from outside, because Debian's python3 comes without ensurepip.
$(VENV)/bin/python:
	@$(PYTHON) -m venv --without-pip $(VENV)
	@$(PYTHON) -m pip --python $(VENV)/bin/python install -qq pip

$(VENV)/.installed: $(VENV)/bin/python setup.cfg pyproject.toml constraints.txt
	@echo "Installing qcnode and what it needs into $(VENV): minutes on a slow line."
	@$(VENV)/bin/python -m pip install -qq --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	@$(VENV)/bin/python -m pip install -qq --constraint constraints.txt --editable ".[test]"
	@touch $@

clean:
	rm -rf $(VENV)
