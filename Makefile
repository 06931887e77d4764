# Everything from nothing: each target first makes .venv and installs what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOWEST := .venv-lowest
AUDIT := .venv-audit
DEMO := demo
PNEUMOTHORAX := demo-pneumothorax

.PHONY: demo pneumothorax test test-slow test-nightly fuzz lint docs clean test-lowest audit constraints

# Phantoms → dataset → detector, and a mask head on its trunk → submission → report. Each file named below marks a finished
# step, so that an interrupted demo goes on where it stopped; `make clean` forgets it.
demo: $(DEMO)/report/report.html $(DEMO)/truth/contact_sheet.png
	@echo
	@echo "submission   $(DEMO)/predictions/submission.csv"
	@echo "overlays     $(DEMO)/predictions/overlays/   (truth beside them in $(DEMO)/truth/)"
	@echo "report       $(DEMO)/report/report.html   (numbers in metrics.json)"
	@echo "training     $(BIN)/tensorboard --logdir $(DEMO)"

$(DEMO)/raw/drawn: | $(VENV)/core
	$(BIN)/python tools/phantoms.py --save-path $(DEMO)/raw --trees vinbig --n-train 500 --n-test 100 --size 512 \
		--normal-fraction 0.2 --pneumothorax-fraction 0.1
	@touch $@

$(DEMO)/data/conversion.json: $(DEMO)/raw/drawn
	$(BIN)/python tools/convert.py vinbig --data-path $(DEMO)/raw/vinbig --save-path $(DEMO)/data --image-size 256
	@touch $@

$(DEMO)/truth/contact_sheet.png: $(DEMO)/data/conversion.json
	$(BIN)/python tools/view.py --data-path $(DEMO)/data --save-path $(DEMO)/truth --split test --n 12
	@touch $@

$(DEMO)/run/trained: $(DEMO)/data/conversion.json
	$(BIN)/python xray/train.py --config configs/demo.yaml $$(test -f $(DEMO)/run/config.yaml && echo --resume)
	@touch $@

# VinBigData has no masks: the head learns from others.
$(DEMO)/masks/conversion.json: | $(VENV)/core
	$(BIN)/python tools/phantoms.py --save-path $(DEMO)/raw --trees siim --n-train 240 --n-test 0 --size 512 \
		--normal-fraction 0.6 --pneumothorax-fraction 0.5
	$(BIN)/python tools/convert.py siim --data-path $(DEMO)/raw/siim --save-path $(DEMO)/masks --image-size 256 --overwrite
	@touch $@

$(DEMO)/head/trained: $(DEMO)/masks/conversion.json $(DEMO)/run/trained
	$(BIN)/python xray/train.py --config configs/demo-head.yaml $$(test -f $(DEMO)/head/config.yaml && echo --resume)
	@touch $@

# How far boxes follow the masks is fitted on the fold that the detector was not trained on. Without --precision, infer.py
# would try on 32 radiographs what a faster one costs, which takes longer than it gains on 100.
$(DEMO)/refined/predictions.json: $(DEMO)/head/trained
	$(BIN)/python tools/infer.py --weights $(DEMO)/head --data-path $(DEMO)/data --fold 0 --save-path $(DEMO)/fold0 \
		--precision 32 --overwrite
	$(BIN)/python tools/refine.py --predictions $(DEMO)/run/validation/predictions.json --fold 0 --fit --overwrite \
		--masks $(DEMO)/fold0/predictions.json --weights $(DEMO)/head --data-path $(DEMO)/data --save-path $(DEMO)/refined

$(DEMO)/predictions/predictions.json: $(DEMO)/refined/predictions.json
	$(BIN)/python tools/infer.py --weights $(DEMO)/run $(DEMO)/head --data-path $(DEMO)/raw/vinbig/test \
		--save-path $(DEMO)/predictions --overlays --truth $(DEMO)/data --precision 32 --overwrite
	@touch $@

$(DEMO)/report/report.html: $(DEMO)/predictions/predictions.json
	$(BIN)/python tools/evaluate.py --predictions $(DEMO)/predictions/predictions.json --data-path $(DEMO)/data \
		--save-path $(DEMO)/report --baseline --overwrite
	@touch $@

# Phantoms with masks → U-Net → SIIM submission → report: prints Dice over positives and the AUROC of whole radiographs.
pneumothorax: $(PNEUMOTHORAX)/report/report.html
	@echo
	@echo "submission   $(PNEUMOTHORAX)/predictions/submission.csv"
	@echo "pictures     $(PNEUMOTHORAX)/predictions/overlays/   (truth on the left)"
	@echo "report       $(PNEUMOTHORAX)/report/report.html   (numbers in metrics.json)"

$(PNEUMOTHORAX)/raw/drawn: | $(VENV)/core
	$(BIN)/python tools/phantoms.py --save-path $(PNEUMOTHORAX)/raw --trees siim --n-train 400 --n-test 100 --size 512 \
		--normal-fraction 0.3
	@touch $@

$(PNEUMOTHORAX)/data/conversion.json: $(PNEUMOTHORAX)/raw/drawn
	$(BIN)/python tools/convert.py siim --data-path $(PNEUMOTHORAX)/raw/siim --save-path $(PNEUMOTHORAX)/data --image-size 192
	@touch $@

$(PNEUMOTHORAX)/run/trained: $(PNEUMOTHORAX)/data/conversion.json
	$(BIN)/python xray/train.py --config configs/phantom-pneumothorax.yaml \
		$$(test -f $(PNEUMOTHORAX)/run/config.yaml && echo --resume)
	@touch $@

$(PNEUMOTHORAX)/predictions/predictions.json: $(PNEUMOTHORAX)/run/trained
	$(BIN)/python tools/infer.py --weights $(PNEUMOTHORAX)/run --data-path $(PNEUMOTHORAX)/raw/siim/dicom-images-test \
		--save-path $(PNEUMOTHORAX)/predictions --probabilities --overlays --truth $(PNEUMOTHORAX)/data --overwrite

$(PNEUMOTHORAX)/report/report.html: $(PNEUMOTHORAX)/predictions/predictions.json
	$(BIN)/python tools/evaluate.py --predictions $(PNEUMOTHORAX)/predictions/predictions.json \
		--data-path $(PNEUMOTHORAX)/data --save-path $(PNEUMOTHORAX)/report --overwrite

# A process for each core; the tests of one file stay together, as they share what they set up.
PROCESSES := -n auto --maxprocesses 4 --dist loadfile
test: $(VENV)/installed
	$(BIN)/python -m pytest -m "not slow and not nightly" $(PROCESSES)

# Kills by the dozen, every network with every loss: what the others hold a sample of.
test-nightly: $(VENV)/installed
	$(BIN)/python -m pytest -m nightly $(PROCESSES)

test-slow: $(VENV)/installed
	$(BIN)/python -m pytest -m "slow and not nightly" $(PROCESSES)

# The suite with the lowest versions that setup.cfg allows. Those named in KEEP stay at their pinned version:
# a second build of torch is a large download. `make test-lowest KEEP=` tries its floor as well.
KEEP := torch torchvision
test-lowest: $(LOWEST)/installed
	$(LOWEST)/bin/python -m pytest -m "not slow and not nightly" $(PROCESSES)

# Known holes in the versions that are pinned. Each exception is explained in SECURITY.md.
ACCEPTED :=
audit: $(AUDIT)/installed
	grep -hE "^[A-Za-z0-9._-]+==" requirements.txt requirements-dev.txt constraints.txt > $(AUDIT)/pins.txt
	$(AUDIT)/bin/pip-audit --strict --disable-pip --no-deps -r $(AUDIT)/pins.txt $(ACCEPTED:%=--ignore-vuln %)

# Resolves what comes along with the pins of both requirements files anew; `make test` then tests it.
constraints:
	$(PYTHON) scripts/constraints.py

# Mutated radiographs, tables, run lengths, JSON and YAML through the readers of every command: a table of what became of
# them, and status 1 on a breach, whose input is kept. `make fuzz FUZZ="--images 1000 --seed 7"` tries fewer, or others.
FUZZ :=
fuzz: $(VENV)/installed
	$(BIN)/python tests/fuzz/run.py $(FUZZ)

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

# The site of docs/, with a page made of the API's docstrings, in docs/_build.
docs: $(VENV)/installed
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs docs/_build

# Each file is touched last, so that an installation that was interrupted starts again. What the commands need:
$(VENV)/core: requirements.txt constraints.txt setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "xray needs Python 3.11 or newer, and $(PYTHON) is older: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

# And what extras, tests, linters and documentation need besides:
$(VENV)/installed: $(VENV)/core requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

$(LOWEST)/installed: setup.cfg requirements.txt requirements-dev.txt scripts/lowest.py
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python scripts/lowest.py --keep $(KEEP) > $(LOWEST)/lowest.txt
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check -r $(LOWEST)/lowest.txt -e .
	@touch $@

$(AUDIT)/installed:
	$(PYTHON) -m venv --clear $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	@touch $@

clean:
	rm -rf $(VENV) $(LOWEST) $(AUDIT) $(DEMO) $(PNEUMOTHORAX)
