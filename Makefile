# make demo | test | test-oldest | test-slow | lint | docs   (each builds its environment if it is not there)
PYTHON ?= python3
VENV := .venv
OLDEST := .venv-oldest
USUAL := -n 2 --dist loadfile -m "not slow and not gpu"
BIN := $(VENV)/bin
DEMO := runs/demo
CASE := $(DEMO)/data/test/MultiCoil/Cine/TestSet

.PHONY: demo test test-oldest test-slow lint docs clean

# Bytecode is compiled where a module is first imported; most of what is installed never is.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile --editable '.[dev]'
	touch $@

# The PyTorch oracle's tests run where torch is installed: make test TORCH=torch==2.13.0
# Compiling takes longer than what is compiled takes to run, so LLVM is told not to optimise, and XLA
# to leave out MLIR on the way to it.
test test-oldest: export XLA_FLAGS += --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false
test: $(VENV)/.installed
	$(if $(TORCH),$(BIN)/pip install --quiet --no-compile $(TORCH))
	$(BIN)/pytest $(USUAL)

# With the oldest versions that pyproject.toml allows, in an environment of its own.
test-oldest:
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/pip install --quiet uv
	$(OLDEST)/bin/uv pip install --quiet --python $(OLDEST)/bin/python --resolution lowest-direct --editable '.[dev]'
	$(OLDEST)/bin/pytest $(USUAL)

test-slow: $(VENV)/.installed
	$(BIN)/pytest -m slow

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# The texts and all docstrings as pages: site/docs/index.html. A name that leads nowhere fails it.
docs: $(VENV)/.installed
	$(BIN)/pip install --quiet --editable '.[docs]'
	rm -rf docs/api
	$(BIN)/sphinx-build --quiet --fail-on-warning -c docs . site

# Phantoms on disk, a tiny network trained on them, its scores on unseen ones, one file reconstructed,
# with it and with the weights in the package.
PHANTOM := $(BIN)/python -m kgmgt_jax.data.phantom --shape 80,64 --field_of_view_mm 440,352 \
  --n_coils 4 --n_frames 8

# Its batches are of one example, for which one GPU of several is enough.
demo: export CUDA_VISIBLE_DEVICES ?= 0
demo: $(VENV)/.installed
	rm -rf $(DEMO)
	$(PHANTOM) --out $(DEMO)/data/train --seed 0 --n_subjects 24 --accelerations "" > /dev/null
	$(PHANTOM) --out $(DEMO)/data/test --seed 2000 --n_subjects 4 --n_slices 1 --split TestSet \
	  --accelerations 4 --acs 8 > /dev/null
	$(BIN)/python train.py --config=configs/kgmgt.py:tiny --workdir=$(DEMO)/train \
	  --config.data.train=$(DEMO)/data/train
	$(BIN)/python eval.py --checkpoint=$(DEMO)/train --compare=untrained=$(DEMO)/train/checkpoints/0 \
	  --data=$(CASE)/FullSample --acceleration=4 --mask_kind=uniform_aligned --acs=8 \
	  --out=$(DEMO)/eval
	for weights in $(DEMO)/train pretrained; do \
	  $(BIN)/python reconstruct.py $(CASE)/AccFactor04/P001/cine_sax.mat \
	    --reference=$(CASE)/FullSample/P001/cine_sax.mat --checkpoint=$$weights \
	    --out=$(DEMO)/reconstruction/$$(basename $$weights) || exit; \
	done

clean:
	rm -rf $(VENV) $(OLDEST) docs/api site runs
