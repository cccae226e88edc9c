"""export.card: the lines on a student's card answer as the trained model does, where nothing of this project is."""

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from data import bilstms
from data.parts import Parts
from export import card, onnx_graph, onnx_int8
from report.tables import student_table
from tests import tiny
from tests.alone import BLOCK, ask_card
from tests.starting import ROOT
from tests.taken import CLASSES, LINES


@pytest.fixture(scope="module", params=[False, True], ids=["texts", "pairs"])
def carded(request, taken, tmp_path_factory):
    """(a student's folder with model.onnx, its run, what writes its card): of texts, of pairs."""
    folder = shutil.copytree(taken.folder, tmp_path_factory.mktemp("run") / "student")
    onnx.save(onnx_graph.text_graph(taken.classifier.bert), folder / "model.onnx")
    couples = [*zip(LINES, LINES[::-1], strict=True)]
    corpus = SimpleNamespace(name="a", classes=CLASSES, labels=np.zeros(len(LINES), int), pairs=request.param,
                             texts=couples if request.param else LINES)
    parts = Parts(np.arange(8), np.arange(0), np.arange(len(LINES)), np.arange(2))
    run = SimpleNamespace(bert=taken.bert, parts=parts, corpus=corpus, examples=tiny.tokenized(corpus.texts, taken.bert),
                          settings=SimpleNamespace(maxlen=16, int8_disagreement=100.0))
    best = {"name": "alone", "seed": 0, "layers": 2, "accuracy": 0.5, "parameters": 9, "latency_ms": {"1": 1.0, "32": 2.0}}
    table = student_table(None, best, [])

    def write_card():
        text = card.model_card("One.\n\nTwo.", run, best, taken.bert, table, folder)
        (folder / "README.md").write_text(text, encoding="utf-8")

    return folder, run, write_card


@pytest.mark.slow
def test_the_lines_of_the_card_answer_as_the_trained_model(taken, carded, tmp_path):
    """As they stand, and with other texts; by float32 to 1e-5, by int8 nearly."""
    folder, run, write_card = carded
    for int8 in (False, True):
        if int8:
            onnx.save(onnx_int8.quantized(onnx.load(folder / "model.onnx")), folder / "model.int8.onnx")
        write_card()
        for texts in (None, run.corpus.texts):
            asked, found, printed = ask_card(folder, tmp_path, texts)
            assert len(asked) == len(found) == len(printed) and isinstance(asked[0], tuple) == run.corpus.pairs
            expected = taken.probabilities(asked)
            error = np.abs(found - expected).max()
            assert 1e-5 < error < 0.05 if int8 else error < 1e-5
            for text, p, line in zip(asked, found, printed, strict=True):
                assert line == f"{p.max():.1%} {CLASSES[p.argmax()]}: {text}"


def test_names_of_others_are_text_on_the_card(taken, carded):
    """Of the data and the BERT: no markup, no line of their own, nothing that a terminal obeys."""
    folder, run, _ = carded
    evil = "<img src=x>\n# [a](b) \x1b[2J|`x`"
    there = SimpleNamespace(**vars(run) | {
        "corpus": SimpleNamespace(**vars(run.corpus) | {"name": evil}), "bert": replace(run.bert, source=evil)})
    text = card.model_card("One.\n\nTwo.", there, {"name": "alone", "seed": 0, "layers": 2}, taken.bert, [["model"]], folder)
    shown = r"\<img src=x>\u000a# [a]\(b) \u001b[2J\|\`x\`"
    assert f"# alone of {shown} on {shown}\n" in text and "load `saved_model/` only if you trust who made it" in text
    linear = card.linear_card(there, {"name": "linear", "terms": "words", "accuracy": 0.5})
    assert f"# linear on {shown}\n" in linear
    for shown in (text, linear):
        assert "\x1b" not in shown and not re.search(r"(?<!\\)(<img|\]\(b|`x)", shown)


def test_the_card_of_a_bilstm_claims_no_library(taken, carded):
    """Nor that it is layers of the BERT."""
    folder, run, _ = carded
    bilstm = bilstms.draw(taken.bert, 4, units=6, dense=7, embeddings="bert", seed=0)
    best = {"name": "bilstm-distilled", "seed": 0, "layers": 1}
    text = card.model_card("One.\n\nTwo.", run, best, bilstm, [["model"]], folder)
    assert "a BiLSTM of 6 units each way (Tang et al. 2019)" in text and "which transformers cannot load" in text
    assert "transformers.pipeline" not in text and "layers of" not in text and "With TensorFlow:" in text
    assert "tags: [knowledge-distillation, bilstm]" in text
    of_bert = card.model_card("One.\n\nTwo.", run, best | {"layers": 2}, taken.bert, [["model"]], folder)
    assert "transformers.pipeline" in of_bert and "2 layers of" in of_bert


def test_the_card_says_what_is_promised_and_of_which_file(taken, carded):
    folder, run, _ = carded
    best = {"name": "fastbert", "seed": 0, "layers": 1.5, "speed": 0.312}
    shown = card.model_card("One.\n\nTwo.", run, best, taken.bert, [["model"]], folder)
    assert f": {taken.bert.layers} layers of " in shown
    kind = "pairs of texts" if run.corpus.pairs else "texts"
    assert f", of which it computes 1.5 on average at its speed, 0.312, taught on 8 labelled {kind} of " in shown
    more = card.model_card("One.\n\nTwo.", run, best | {"unlabelled": 1234}, taken.bert, [["model"]], folder)
    assert f"taught on 8 labelled {kind} and 1,234 without labels of " in more
    promise = {"max_disagreement": 1.0, "confidence": 95.0, "texts": 1000, "disagreements": 3}
    assert "romise" not in card.model_card("One.\n\nTwo.", run, best, taken.bert, [["model"]], folder)
    others = {"model.onnx": 17, "model.int8.onnx": 21}
    text = card.model_card("One.\n\nTwo.", run, best | {"promise": promise}, taken.bert, [["model"]], folder, others)
    assert ("Promised of `model.onnx` at its speed, 0.312: with 95 % confidence at most 1 % of texts like the 1,000 it was "
            "calibrated on are answered otherwise than by all layers with all tokens (3 of those were). Of these texts the "
            "files answer otherwise: model.onnx 17, model.int8.onnx 21. "
            "At other speeds, of texts of another kind or in int8, nothing is.") in text


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_the_lines_of_the_readme_answer_where_nothing_but_onnxruntime_is(taken, tmp_path, readme):
    folder = shutil.copytree(taken.folder, tmp_path / "runs/knowledge_distillation_bert-demo/student")
    onnx.save(onnx_int8.quantized(onnx.load(folder / "model.onnx")), folder / "model.int8.onnx")
    lines = next(block for block in (ROOT / readme).read_text("utf-8").split("```python\n")[1:] if "onnxruntime" in block)
    done = subprocess.run([sys.executable, "-c", BLOCK + lines.split("```")[0]], capture_output=True, text=True, cwd=tmp_path)
    expected = taken.probabilities(["a text", "another, which is longer"]).argmax(-1)
    assert (done.stdout, done.stderr) == (f"{[CLASSES[best] for best in expected]}\n", "")


def test_a_card_says_only_what_is_there(carded, tmp_path):
    folder, run, _ = carded
    shutil.copy(folder / "model.onnx", tmp_path)
    section = card.onnx_section(run, {"speed": 0.3}, 0, tmp_path)
    assert '"speed": np.array(0.3, np.float32)}' in section and ("type_ids" in section) == run.corpus.pairs
    assert section.startswith("By `model.onnx`:") and "speed" not in card.onnx_section(run, {}, 0, tmp_path)
    (tmp_path / "model.int8.onnx").write_bytes(b"")
    section = card.onnx_section(run, {}, 0, tmp_path)
    assert section.startswith("By `model.int8.onnx`; `model.onnx` is the same in float32")
