# make demo: distil a BERT from a fresh clone.  make digits: a small network.  make quick: ruff and the unit tests, to edit and
# rerun.  make test: ruff and all tests.  All make .venv first.
# make results: the runs of RESULTS.md that need no further data, anew: 17 hours, added up from their pages.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo digits quick test benchmarks results lock clean

demo: .venv/installed
	$(BIN)/python knowledge_distillation_bert.py

digits: .venv/installed
	$(BIN)/python knowledge_distillation_from_scratch.py

quick: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -m "not slow"

test: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/python -m pytest

benchmarks: .venv/installed
	$(BIN)/python -m tests.benchmarks

# What is interrupted resumes with the same command. The three runs on 20newsgroups have one teacher, to the last bit.
RUN := $(BIN)/python knowledge_distillation_
results: .venv/installed
	$(RUN)from_scratch.py --temperature-sweep 1 2 5 10 20 --omit-class 3 --output runs/from-scratch-digits
	$(RUN)bert.py 20newsgroups --unlabelled-examples 1400 --maxlen 48 --experiments teacher alone distilled \
		distilled-unlabelled alone-self-distilled teacher-self-distilled noise --patience 0 --teacher-epochs 5 \
		--unlabelled-steps 315 --student-epochs 12 --student-learning-rate 0.0002 --seeds 0 1 2 3 4 \
		--precision mixed_bfloat16 --output runs/bert-20newsgroups
	$(RUN)bert.py 20newsgroups --unlabelled-examples 1400 --maxlen 48 --experiments teacher alone distilled \
		distilled-unlabelled --patience 0 --teacher-epochs 5 --unlabelled-steps 315 --student-epochs 12 \
		--student-learning-rate 0.0002 --seeds 0 1 2 3 4 --output runs/bert-20newsgroups-float32
	$(RUN)bert_of_theseus.py 20newsgroups --maxlen 48 --experiments predecessor middle successor unmixed \
		theseus-additive theseus-random theseus-random-linear --patience 0 --predecessor-epochs 5 --mixed-epochs 6 \
		--successor-epochs 6 --direct-epochs 12 --successor-learning-rate 0.0002 --clip-norm 0 --seeds 0 1 2 3 4 \
		--precision mixed_bfloat16 --output runs/theseus-20newsgroups
	$(RUN)fastbert.py 20newsgroups --unlabelled-examples 1400 --maxlen 48 --student-layers --uncertainty-top-k 0 \
		--speeds 0 0.1 0.3 0.5 0.6 0.65 0.7 0.75 0.8 0.9 1 --accuracy-drop 0.2 --timed-examples 128 --patience 0 \
		--teacher-epochs 5 --branch-epochs 12 --student-epochs 6 --student-learning-rate 0.0002 \
		--seeds 0 1 2 3 4 --precision mixed_bfloat16 --output runs/fastbert-20newsgroups
	$(RUN)fastbert.py --experiments fastbert fastbert-labels fastbert-joint --seeds 0 1 2 3 4 --precision mixed_bfloat16 \
		--output runs/fastbert-reuters-r8
	$(RUN)fastbert.py --data reuters-r52 --train-examples 2000 --unlabelled-examples 0 --teacher-epochs 6 \
		--branch-epochs 8 --student-epochs 12 --seeds 0 1 2 3 4 --precision mixed_bfloat16 --output runs/fastbert-reuters-r52
	$(RUN)fastbert.py 20newsgroups --student-layers --seeds 0 1 2 --precision mixed_bfloat16 \
		--output runs/fastbert-20newsgroups-128
	$(RUN)bert.py 20newsgroups --experiments teacher distilled-layers linear-distilled --seeds 0 1 2 3 4 \
		--precision mixed_bfloat16 --output runs/bert-20newsgroups-128
	$(RUN)bert.py --seeds 0 1 2 3 4 --precision mixed_bfloat16 --output runs/bert-reuters-r8
	$(RUN)bert.py --maxlen 64 --experiments teacher alone distilled distilled-unlabelled --batch-size 32 --patience 5 \
		--teacher-epochs 15 --student-epochs 25 --unlabelled-steps 315 --seeds 0 1 2 3 4 --output runs/bert-reuters-r8-64
	$(RUN)bert.py --experiments teacher distilled-unlabelled distilled-layers --layers-init spread \
		--seeds 0 1 2 --precision mixed_bfloat16 --output runs/bert-reuters-r8-start
	$(RUN)bert.py --unlabelled-examples None --experiments teacher distilled-layers \
		--seeds 0 1 2 --precision mixed_bfloat16 --output runs/bert-reuters-r8-further
	$(RUN)bert.py --experiments teacher distilled-layers --soft-weight 0 \
		--seeds 0 1 2 --precision mixed_bfloat16 --output runs/bert-reuters-r8-soft
	$(RUN)bert.py --student-init teacher-spread --experiments teacher distilled-unlabelled distilled-layers \
		--seeds 0 1 2 --precision mixed_bfloat16 --output runs/bert-reuters-r8-layers
	$(RUN)bert.py --experiments teacher alone distilled distilled-augmented --student-epochs 60 \
		--unlabelled-steps 800 --seeds 0 1 2 3 4 --precision mixed_bfloat16 --output runs/bert-reuters-r8-augmented
	$(RUN)bert.py --student-hidden 192 --experiments teacher distilled-layers --unlabelled-steps 800 --seeds 0 1 2 3 4 \
		--precision mixed_bfloat16 --output runs/bert-reuters-r8-narrow
	$(RUN)bert.py --student-hidden 192 --narrowing least-squares --experiments teacher distilled-layers \
		--unlabelled-steps 800 --seeds 0 1 2 --precision mixed_bfloat16 --output runs/bert-reuters-r8-narrow-lsq
	$(RUN)bert_of_theseus.py --maxlen 48 --experiments predecessor theseus-additive --seeds 0 1 2 \
		--precision mixed_bfloat16 --output runs/theseus-reuters-r8
	$(RUN)bert.py --student-init theseus:runs/theseus-reuters-r8 --experiments teacher distilled-unlabelled \
		--seeds 0 1 2 --precision mixed_bfloat16 --output runs/bert-reuters-r8-theseus
	$(BIN)/python -m results runs/from-scratch-digits runs/bert-20newsgroups runs/theseus-20newsgroups \
		runs/fastbert-20newsgroups runs/fastbert-reuters-r8 runs/fastbert-reuters-r52 runs/fastbert-20newsgroups-128 \
		runs/bert-20newsgroups-128 runs/bert-reuters-r8 runs/bert-reuters-r8-start runs/bert-reuters-r8-further \
		runs/bert-reuters-r8-soft runs/bert-reuters-r8-layers runs/bert-reuters-r8-augmented \
		runs/bert-reuters-r8-narrow runs/bert-reuters-r8-narrow-lsq runs/theseus-reuters-r8 runs/bert-reuters-r8-theseus \
		runs/bert-20newsgroups-float32 runs/bert-reuters-r8-64

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
