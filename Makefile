# Each target makes the virtual environment it needs; nothing but python3, make and a package registry is assumed.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python

.PHONY: demo test lint format bench train clean

demo: $(VENV)/.installed
	$(RUN) -m sigconv.cli demo

test: $(VENV)/.installed-test $(VENV)/.tried-ptx
	$(RUN) -m pytest $(ARGS)

lint: $(VENV)/.installed-lint
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

format: $(VENV)/.installed-lint
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

bench: $(VENV)/.installed-bench
	$(RUN) -m benchmarks.cnn $(ARGS)
	$(RUN) -m benchmarks.render

train: $(VENV)/.installed-train
	$(RUN) -m sigconv.demo.train

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

$(RUN):
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(RUN)
	$(RUN) -m pip install --quiet --disable-pip-version-check -e .
	touch $@

# NVIDIA's compiler checks the CUDA kernels; where it cannot be installed those tests are skipped.
$(VENV)/.tried-ptx: pyproject.toml | $(RUN)
	-$(RUN) -m pip install --quiet --disable-pip-version-check -e '.[ptx]'
	touch $@

$(VENV)/.installed-%: pyproject.toml | $(RUN)
	$(RUN) -m pip install --quiet --disable-pip-version-check -e '.[$*]'
	touch $@
