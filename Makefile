# Everything runs in .venv, made from the hash-pinned requirements.txt. `python3` is 3.11 or newer; set PYTHON for another.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
TRAIN := .venv-train/ready

# Compiled modules are kept, whatever the machine says: hundreds of processes of the tests would compile them anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-long test-train check bench conformance soak lock clean style

demo: $(READY)
	$(BIN)/python -m ml_intern demo --data .demo

test: $(READY)
	$(BIN)/python -m pytest -q -n 4 --dist loadfile --no-loadscope-reorder -m "not long and not soak and not train"

# Those that take their time. SHARE=0.5 DRAW=text runs half of them, and which half the text says.
SHARE ?= 1
test-long: $(READY)
	$(BIN)/python -m pytest -q -n 4 --dist worksteal -m "long and not soak and not train" --share $(SHARE) --draw "$(DRAW)"

# One method a trainer, under an environment of its own: torch is no part of the other one.
test-train: $(READY) $(TRAIN)
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "train and not soak" --share $(SHARE) --draw "$(DRAW)" tests/train

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tests/quality/shared.py
	$(BIN)/python tests/quality/wheel.py

conformance: $(READY)
	$(BIN)/python tests/conformance/run.py .conformance

bench: $(READY)
	$(BIN)/python tests/bench/run.py

soak: $(READY) $(TRAIN)
	$(BIN)/python -m pytest -q -n 4 --dist loadfile --no-loadscope-reorder -m ""
	$(BIN)/python tests/bench/run.py --full

style: $(READY)
	$(BIN)/python tests/quality/shared.py --write
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The environment is made again when what it is made of changes.
$(READY): requirements.txt pyproject.toml
	"$(PYTHON)" -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	"$(PYTHON)" -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $(READY)

$(TRAIN): pyproject.toml
	"$(PYTHON)" -m venv --clear .venv-train
	"$(PYTHON)" -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["train"], sep="\n")' > .venv-train/train.txt
	.venv-train/bin/python -m pip install --quiet --disable-pip-version-check -r .venv-train/train.txt
	touch $(TRAIN)

# Needs uv. The extra "train" stays out: torch and its CUDA libraries are gigabytes that only training needs.
lock:
	uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-emit-find-links --generate-hashes \
		--no-header --no-annotate --extra demo --extra testing --extra html --extra embedded --group dev pyproject.toml --output-file requirements.txt

clean:
	rm -rf .venv .venv-train .demo .conformance build dist *.egg-info
