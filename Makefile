# make demo: distil a BERT from a fresh clone.  make digits: a small network.  make test: ruff and the tests.  All make .venv first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo digits test benchmarks lock clean

demo: .venv/installed
	$(BIN)/python knowledge_distillation_bert.py

digits: .venv/installed
	$(BIN)/python knowledge_distillation_from_scratch.py

test: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/python -m pytest

benchmarks: .venv/installed
	$(BIN)/python -m tests.benchmarks

.venv/installed: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --no-deps -r requirements.txt
	touch $@

# Pins anew what pyproject.toml names; needs uv. pip could not: bert4keras demands keras<=2.3.1.
lock:
	uv pip compile --upgrade --universal --generate-hashes --python-version 3.10 --group run --group test \
		--custom-compile-command "make lock" --quiet --output-file requirements.txt
	sed -i '1i # Every package, pinned and hashed. Install: pip install --no-deps -r requirements.txt\n# (--no-deps because bert4keras demands keras<=2.3.1, which no current TensorFlow allows; see pyproject.toml)' requirements.txt

clean:
	rm -rf .venv
