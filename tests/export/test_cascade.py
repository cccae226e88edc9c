"""export.cascade: a cascade answers as its student and its teacher do, also from its folder; what is told and refused."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from sklearn.svm import LinearSVC

from common import InputError
from data import linear_models
from data.cascades import UNCERTAINTY, cascade_of
from data.students import ask, load
from export import cascade, predict
from export.timing import turns
from tests import tiny
from tests.data.test_cascades import CONFIG, PROMISE, TEXTS, made_up, random_p
from tests.data.test_linear_models import MODELS as LINEAR_MODELS
from tests.export.test_cascade_promise import upper_bound
from tests.starting import ROOT
from tests.taken import CLASSES

# The command ---------------------------------------------------------------------------------------------------------------


def write_model(folder, source, classes, change):
    """A copy of the student in `source` with these classes, and what `change` makes of each array of its head, (…, classes)."""
    folder.mkdir()
    shutil.copy(source / "tokenizer.json", folder)
    labels = {str(i): name for i, name in enumerate(classes)}
    config = json.loads((source / "config.json").read_text("utf-8")) | {"id2label": labels}
    (folder / "config.json").write_text(json.dumps(config))
    graph = onnx.load(source / "model.onnx")
    for array in graph.graph.initializer:
        if array.name in ("classifier", "output_bias"):
            array.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(array)).astype(np.float32), array.name))
    onnx.save(graph, folder / "model.onnx")
    return folder


@pytest.fixture(scope="module")
def pair(taken, labelled, tmp_path_factory):
    """Folders of a student, whose answers differ from text to text, and of a teacher that mostly answers so, its classes in
    another order."""
    folder, rng, order = tmp_path_factory.mktemp("pair"), np.random.default_rng(0), [3, 1, 0, 2]
    mean = np.log(ask(load(taken.folder), [text for text, _ in labelled.pairs])["probabilities"]).mean(axis=0)
    student = write_model(folder / "one", taken.folder, CLASSES, lambda x: 30 * (x - mean * (x.ndim == 1)))
    noisy = [CLASSES[i] for i in order], lambda x: (x + rng.normal(0, 1, x.shape) * (x.ndim == 2))[..., order]
    return student, write_model(folder / "other", student, *noisy)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A file of 400 texts with labels, and the same without."""
    folder, made = tmp_path_factory.mktemp("texts"), tiny.texts(400, seed=7)
    named = [(text, CLASSES[int(label[-1])]) for text, label in made]
    tiny.write_jsonl(folder / "labelled.jsonl", named)
    (folder / "plain.txt").write_text("\n".join(text for text, _ in named))
    return SimpleNamespace(file=folder / "labelled.jsonl", plain=folder / "plain.txt", pairs=named)


@pytest.fixture
def timed(monkeypatch):
    """A shorter look at the clock."""
    monkeypatch.setattr(cascade, "TIMED", {1: 2, 32: 1})
    monkeypatch.setattr(cascade, "turns", partial(turns, count=1))


def test_the_command_and_the_folder_that_it_writes(pair, labelled, timed, tmp_path, capsys):
    """Every figure of its table, but for the clock, from the answers of the two; and the folder answers so, too."""
    folder, texts = tmp_path / "new" / "cascade", [text for text, _ in labelled.pairs]
    cascade.build(*map(str, pair), file=str(labelled.file), max_disagreement=3, output=str(folder))
    out = capsys.readouterr().out
    one, other, both = *map(load, pair), load(folder)
    config = json.loads((folder / "cascade.json").read_text("utf-8"))
    p, theirs = ask(one, texts)["probabilities"], ask(other, texts)["probabilities"]
    theirs = theirs[:, [other.classes.index(name) for name in one.classes]]
    sure = UNCERTAINTY["confidence"](p) < config["threshold"]
    expected, labels = np.where(sure[:, None], p, theirs), [CLASSES.index(label) for _, label in labelled.pairs]
    assert 0 < sure.sum() < 400 and config["criterion"] == "confidence"
    answer = ask(both, texts, batch_size=17)
    np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-4)
    assert ((answer["answered_by"] == "student") == sure).all()
    disagreements = (expected.argmax(1) != theirs.argmax(1)).sum()
    assert config["promise"] == {"max_disagreement": 3, "confidence": 95, "texts": 400, "disagreements": disagreements}
    assert upper_bound(disagreements, 400, 95) <= 3
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.startswith(("teacher ", "student ", "cascade "))}
    for name, values, share in (("teacher", theirs, 1), ("student", p, 0), ("cascade", expected, 1 - sure.mean())):
        others, accuracy = (values.argmax(1) != theirs.argmax(1)), (values.argmax(1) == labels).mean()
        assert rows[name][1:4] == [f"{others.sum()}", f"{100 * others.mean():.2f}", f"{100 * share:.1f}"]
        assert rows[name][8] == f"{100 * accuracy:.2f}"
    first, last = out.splitlines()[0], out.splitlines()[-1]
    assert first.startswith(("does not pay here: the cascade takes ", "times as fast as the teacher: "))
    assert last == f"{folder}: python -m common.predict {folder} --file {labelled.file}"
    assert sorted(path.name for path in folder.parent.iterdir()) == ["cascade"]


def test_a_classifier_of_others_as_the_teacher(pair, labelled, timed, tmp_path, capsys):
    """From Hugging Face's files, of which the folder holds the graph: it needs neither them nor the package onnx."""
    labels = {str(i): CLASSES[number] for i, number in enumerate([1, 0, 3, 2])}
    other, folder = tiny.write_classifier(tmp_path / "teacher", labels=labels), tmp_path / "cascade"
    folder.mkdir()  # an empty one may be there
    cascade.build(str(pair[0]), str(other), file=str(labelled.plain), output=str(folder), maxlen=12)
    out, texts = capsys.readouterr().out, [text for text, _ in labelled.pairs]
    assert "accuracy %" not in out and "no threshold keeps it, so the teacher answers always: with 95 %" in out
    answer = ask(load(folder), texts)
    expected = ask(predict.load_teacher(str(other), maxlen=12), texts)["probabilities"]
    np.testing.assert_allclose(answer["probabilities"], expected[:, [1, 0, 3, 2]], atol=1e-6)
    assert set(answer["answered_by"]) == {"teacher"}


@pytest.mark.parametrize("named", [True, False])
def test_a_teacher_whose_classes_have_no_names(taken, labelled, timed, tmp_path, capsys, named):
    """They are numbers, as data has them, unless the student learned from data that has LABEL_0, LABEL_1, … too."""
    numbers = list("0123")
    other = tiny.write_classifier(tmp_path / "teacher", labels={number: f"LABEL_{number}" for number in numbers})
    classes = [f"LABEL_{number}" if named else number for number in "2013"]
    student = write_model(tmp_path / "student", taken.folder, classes, lambda x: x)
    cascade.build(str(student), str(other), file=str(labelled.plain), output=str(tmp_path / "cascade"), maxlen=12)
    both, texts = load(tmp_path / "cascade"), [text for text, _ in labelled.pairs[:8]]
    expected = ask(predict.load_teacher(str(other), maxlen=12), texts)["probabilities"][:, [2, 0, 1, 3]]
    np.testing.assert_allclose(ask(both.teacher, texts)["probabilities"], expected, atol=1e-6)
    assert both.classes == classes


def test_a_linear_model_as_the_student(pair, labelled, timed, tmp_path, capsys):
    """One that learned what the teacher answers to these texts, more or less; it is asked without any graph of its own."""
    texts, teacher = [text for text, _ in labelled.pairs], load(pair[1])
    theirs = ask(teacher, texts)["probabilities"][:, [teacher.classes.index(name) for name in CLASSES]]
    terms = linear_models.vectorizer(False)
    svm = LinearSVC(C=0.1).fit(terms.fit_transform(texts), theirs.argmax(axis=1))
    arrays = (np.float32(array) for array in (svm.coef_.T, svm.intercept_))
    (tmp_path / "linear").mkdir()
    linear_models.save(tmp_path / "linear", linear_models.LinearModel(terms, *arrays, svm.classes_, CLASSES))
    folder = tmp_path / "cascade"
    cascade.build(str(tmp_path / "linear"), str(pair[1]), file=str(labelled.file), max_disagreement=3, output=str(folder))
    both, config = load(folder), json.loads((folder / "cascade.json").read_text("utf-8"))
    p = linear_models.load(tmp_path / "linear").probabilities(texts)
    sure = UNCERTAINTY["confidence"](p) < config["threshold"]
    answer = ask(both, texts)
    assert 0 < sure.sum() < 400 and ((answer["answered_by"] == "student") == sure).all()
    np.testing.assert_allclose(answer["probabilities"], np.where(sure[:, None], p, theirs), atol=1e-4)
    assert sorted(path.name for path in (folder / "student").iterdir()) == ["config.json", "model.safetensors", "terms.json"]
    predict.predict(str(folder), tuple(texts[:3]))
    assert "answered by the teacher" in capsys.readouterr().err


@pytest.fixture(scope="module")
def folder(pair, tmp_path_factory):
    """The folder of a cascade, by hand."""
    folder = tmp_path_factory.mktemp("cascade") / "cascade"
    for name, source in zip(("student", "teacher"), pair, strict=True):
        shutil.copytree(source, folder / name)
    (folder / "cascade.json").write_text(json.dumps(CONFIG))
    return folder


def test_another_model_beside_them(pair, labelled, timed, capsys, monkeypatch):
    """The teacher itself, of which no answer is another, its classes in another order than the student's; the rest stays."""
    cascade.build(*map(str, pair), file=str(labelled.file), max_disagreement=3)
    alone = capsys.readouterr().out.splitlines()
    cascade.build(*map(str, pair), file=str(labelled.file), max_disagreement=3, beside=str(pair[1]))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(alone) + 1
    assert [line.split()[:4] for line in alone[4:7]] == [line.split()[:4] for line in lines[4:7]]
    teacher, beside = lines[4].split(), lines[7].split()
    assert beside[0] == "beside" and beside[1:3] == ["0", "0.00"] and len(beside) == len(teacher) - 1
    assert beside[-1] == teacher[-1]  # its accuracy


def test_predict_tells_who_answered(folder, labelled, capsys):
    predict.predict(str(folder), file=str(labelled.file))
    out, error = capsys.readouterr()
    by = [line.split("uncertainty")[0].split()[-1] for line in out.splitlines()]
    assert len(by) == 400 and {*by} == {"student", "teacher"}
    asked = by.count("teacher")
    assert error.splitlines()[-1] == (
        f"400 texts, {asked} ({asked / 400:.1%}) answered by the teacher; with 95 % confidence at most 1 % of texts like the "
        "1,000 it was calibrated on are answered otherwise than by the teacher (3 of those were)")
    predict.predict(str(folder), ("w1 w2",), json=True)
    predict.predict(str(folder), ("w1 w2",), json=True, all=True)
    one, every = map(json.loads, capsys.readouterr().out.splitlines())
    assert one.keys() == {"text", "labels", "answered_by", "uncertainty"}
    assert every.keys() == {"text", "probabilities", "answered_by", "uncertainty"} and [*every["probabilities"]]
    assert one["labels"][0]["probability"] == max(every["probabilities"].values())


def test_all_probabilities_of_a_model_that_stops_early(taken, capsys, monkeypatch):
    stopping = made_up(taken.bert.tokenizer, random_p(0), speed=0.6)
    monkeypatch.setattr(predict, "load", lambda folder, int8: stopping)
    predict.predict("runs/fastbert", (TEXTS[3],), json=True, all=True)
    answer = json.loads(capsys.readouterr().out)
    assert answer["layers_used"] == 2 and answer["uncertainty"] == 0
    assert [*answer["probabilities"].values()] == pytest.approx(sorted(random_p(0)[3], reverse=True))


_ALONE = """
import runpy, sys
module, *others = sys.argv.pop(1).split()
sys.modules |= dict.fromkeys(others)  # none of these can be imported
runpy.run_module(module, run_name="__main__")
"""


@pytest.mark.parametrize("module", ["predict", "cascade"])
def test_neither_command_needs_tensorflow(folder, module):
    without = "tensorflow keras tf_keras bert4keras sklearn h5py onnx" + " scipy" * (module == "predict")
    words = {"predict": [folder, "w1 w2"], "cascade": [folder / "student", folder / "teacher", "--file", "nowhere.txt"]}[module]
    words = [sys.executable, "-c", _ALONE, f"common.{module} {without}", *words]
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, cwd=ROOT)
    if module == "predict":
        assert done.returncode == 0 and done.stdout.count("\n") == 1 and "answered by the teacher" in done.stderr
    else:
        assert (done.returncode, done.stderr) == (2, "error: --file nowhere.txt: there is no such file\n")


def test_the_threads_of_one_model_rest_while_the_other_is_asked(pair, folder, monkeypatch):
    """In the folder and in what is timed as the cascade; a model by itself is asked as onnxruntime would."""
    made, session_of = [], onnxruntime.InferenceSession

    def watched(model, options, **more):
        made.append(options.get_session_config_entry("session.force_spinning_stop"))
        return session_of(model, options, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", watched)
    load(folder)
    assert made == ["1", "1"]
    makers = cascade.ways([cascade.read_model(str(each), False, 0) for each in pair], CONFIG)
    for name, expected in (("cascade", ["1", "1"]), ("student", ["0"]), ("teacher", ["0"])):
        made.clear()
        makers[name]()
        assert made == expected


# The clock -----------------------------------------------------------------------------------------------------------------


def test_the_texts_that_are_timed_are_unsure_as_often_as_all(taken, monkeypatch):
    """A tenth of all, so a tenth of the 64 single texts and of the 128 in batches: each way is given the same."""
    p, seen = np.full((len(TEXTS), 3), 1 / 3, np.float32), {}
    p[np.random.default_rng(0).permutation(1000)[:900]] = [1, 0, 0]
    both = cascade_of(*(made_up(taken.bert.tokenizer, each) for each in (p, random_p(1))), CONFIG)

    def made_up_turns(makers, batches, rounds):
        answers = {name: [make()(batch) for batch in batches] for name, make in makers.items()}
        by = np.concatenate([answer["answered_by"] for answer in answers["cascade"]])
        seen[len(batches[0])] = batches, (by == "teacher").mean()
        return {name: np.full(len(batches), seconds) for name, seconds in (("teacher", 0.004), ("cascade", 0.001))}

    monkeypatch.setattr(cascade, "turns", made_up_turns)
    ms = cascade.milliseconds({"teacher": lambda: both.teacher, "cascade": lambda: both}, TEXTS, UNCERTAINTY["confidence"](p))
    assert ms == {"teacher": {1: 4.0, 32: 4.0}, "cascade": {1: 1.0, 32: 1.0}}
    for size, (batches, share) in seen.items():
        assert {len(batch) for batch in batches} == {size} and share == pytest.approx(0.1, abs=0.5 / (size * len(batches)))
        assert len({text for batch in batches for text in batch}) == size * len(batches)  # none of them twice


@pytest.mark.parametrize(
    ("one", "many", "words"),
    [
        (2.0, 100.0, "times as fast as the teacher: 2.0 for one text, 2.0 for 32 together"),
        (4.0, 100.0, "does not pay here: the cascade takes 4 ms for one text, the teacher alone 4; times as fast as the "
                     "teacher: 2.0 for 32 together"),
        (3.7, 100.0, "does not pay here: the cascade takes 3.7 ms for one text, the teacher alone 4; times as fast as the "
                     "teacher: 2.0 for 32 together"),
        (2.0, 1234.0, "does not pay here: the cascade takes 1,230 ms for 32 together, the teacher alone 200; times as fast "
                        "as the teacher: 2.0 for one text"),
        (5.0, 300.0, "does not pay here: the cascade takes 5 ms for one text, the teacher alone 4; 300 ms for 32 together, the "
                     "teacher alone 200"),
    ],
)
def test_whether_it_pays(one, many, words):
    assert cascade.verdict({"teacher": {1: 4.0, 32: 200.0}, "cascade": {1: one, 32: many}}) == words


def test_a_blank_line_is_no_text(pair, labelled, tmp_path):
    """298 texts are too few for 1 % at 95 %, whatever number of empty lines stands among them."""
    lines = labelled.plain.read_text("utf-8").splitlines()[:298]
    (tmp_path / "lines.txt").write_text("\n\n \n".join(lines))
    with pytest.raises(InputError, match="there are 298 texts in .*lines.txt, and 299 are needed at least"):
        cascade.build(*map(str, pair), file=str(tmp_path / "lines.txt"))


# What is refused -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"max_disagreement": 0}, "--max-disagreement 0: must be from 0.001 to 99.999, per cent"),
        ({"confidence": 100}, "--confidence 100: must be from 0.001 to 99.999, per cent"),
        ({"max_disagreement": float("nan")}, "--max-disagreement nan: must be from"),
        ({"max_disagreement": 0.5}, "--max-disagreement 0.5 --confidence 95: there are 400 texts in .*, and 598 are needed"),
        ({"file": "nowhere.txt"}, "--file nowhere.txt: there is no such file"),
        ({"maxlen": 2}, "--maxlen 2: must be 3 or more"),
        ({"maxlen": 8}, "--maxlen: is for teachers; .*one and .*other say themselves what they read"),
        ({"pairs": True}, "--pairs: is for teachers"),
        ({"output": "."}, "--output .: there is something already; expected a new folder or an empty one"),
        ({"output": __file__}, "--output .*: there is something already"),
    ],
)
def test_the_command_refuses(pair, labelled, words, message):
    with pytest.raises(InputError, match=message) as error:
        cascade.build(*map(str, pair), **{"file": str(labelled.file)} | words)
    assert "\n" not in str(error.value)


def test_models_that_the_command_refuses(taken, taken_pairs, pair, folder, labelled, tmp_path):
    file = str(labelled.file)
    with pytest.raises(InputError, match="student and teacher are one model; a run's teacher is in its folder teacher/"):
        cascade.build(str(taken.folder), str(taken.folder.parent), file=file)
    for models in ((folder, pair[1]), (pair[0], folder)):
        with pytest.raises(InputError, match="a cascade; expected one model"):
            cascade.build(*map(str, models), file=file)
    linear_models.save(tmp_path, LINEAR_MODELS["two classes"][1])
    model = linear_models.load(tmp_path)
    linear_models.save(tmp_path, replace(model, classes=CLASSES))
    with pytest.raises(InputError, match="a linear model; as the teacher of a cascade a model with a graph"):
        cascade.build(str(pair[1]), str(tmp_path), file=file)
    (tmp_path / "terms.json").unlink()
    (tmp_path / "config.json").unlink()
    with pytest.raises(InputError, match="reads pairs of texts, .* reads single texts"):
        cascade.build(str(taken_pairs.folder), str(pair[1]), file=file)
    with pytest.raises(InputError, match="no config.json in it"):
        cascade.build(str(tmp_path), str(pair[1]), file=file)


def test_labels_are_read_where_every_line_has_one(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "a", "label": 1}\n\n{"text": "b", "label": " 0"}\n')
    assert cascade.labels_in(path, ["0", "1"]).tolist() == [1, 0]
    with pytest.raises(InputError, match="texts.jsonl, line 1: the label 1 is none of the 2 classes"):
        cascade.labels_in(path, ["0", "2"])
    path.write_text('{"text": "a", "label": 1}\n{"text": "b"}\n')
    assert cascade.labels_in(path, ["0", "1"]) is None and cascade.labels_in(tmp_path / "texts.txt", ["0"]) is None
    (tmp_path / "texts.TSV").write_text("label\ttext\n1\ta\n0\tb\n")
    assert cascade.labels_in(tmp_path / "texts.TSV", ["0", "1"]).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": 1.5}, "threshold is 1.5, expected a number from 0 to 1"),
        ({"threshold": True}, "threshold is True, expected a number"),
        ({"threshold": float("nan")}, "not a JSON object .NaN is no number"),
        ({"criterion": "patience"}, "criterion is 'patience', expected confidence or entropy"),
        ({"criterion": []}, "unhashable"),
        ({"promise": None}, "not subscriptable"),
        ({"promise": PROMISE | {"texts": "many"}}, "texts of the promise is 'many', expected a number"),
        ({"promise": {}}, "'max_disagreement' is missing"),
    ],
)
def test_a_broken_cascade_is_refused(folder, tmp_path, change, message):
    shutil.copytree(folder, tmp_path / "cascade")
    path = tmp_path / "cascade" / "cascade.json"
    path.write_text(json.dumps(CONFIG | change))
    with pytest.raises(InputError, match="cascade.json: .*" + message) as error:
        load(path.parent)
    assert "\n" not in str(error.value)


def test_parts_that_are_missing(folder, tmp_path):
    broken = shutil.copytree(folder, tmp_path / "cascade")
    shutil.rmtree(broken / "teacher")
    with pytest.raises(InputError, match="cascade/teacher: no config.json in it"):
        load(broken)
    with pytest.raises(InputError, match="--int8: .* is a cascade, whose promise is of model.onnx; ask it without"):
        predict.predict(str(folder), ("a",), int8=True)
    with pytest.raises(InputError, match="--speed 0.5: .* has no early exit; only a FastBERT has"):
        predict.predict(str(folder), ("a",), speed=0.5)
