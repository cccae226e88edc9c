"""The student to take away, student/: Hugging Face's files, a SavedModel, a model card, ONNX; read back and checked.

What is written here must work where this repository is not. Which student it is the scripts say.
"""

import contextlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save
from scipy.special import softmax
from tokenizers import Tokenizer

from common import InputError, pretrained, reason, report
from common.backend import forget_models, inference_graph, set_precision, tf
from common.files import write_json, write_text, write_whole

TEXTS = tuple(tf.TensorSpec((None, None), tf.int32, name=name) for name in ("token_ids", "segment_ids"))
POOLER_SCALE = 2.0**-12  # a power of two, so that dividing by it loses nothing; narrow floats can still hold both factors
TOLERANCE = 1e-5  # of probabilities, between the trained model and what stands in student/
NOTE = (
    "Of one seed; bytes of the weights in float32. `student/` was read back and asked 32 test texts or images: its "
    f"probabilities are those of the trained model to {TOLERANCE:.0e}."
)


# Writing ---------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def in_float32(precision):
    """A block in which models are built in float32, whatever their `precision` was: what is given away, and timed."""
    forget_models()
    set_precision("float32")
    try:
        yield
    finally:
        set_precision(precision)


def write_encoder(folder, bert, classes, head=None, **more):
    """Write config.json, model.safetensors and the tokenizer of a text classifier, as Hugging Face lays them out.

    bert: with the trained weights. classes: names. head: (kernel (hidden, classes), bias (classes,)) of logits =
    h_[CLS] · kernel + bias; without one only the encoder is written. more: further entries of config.json.

    BertForSequenceClassification puts a pooler between, tanh(P h_[CLS] + p). With P = ε I, p = 0 and kernel / ε it hands on
    h but for ε² h³ / 3, which is less than a hundred-thousandth of h while |h| < 22.
    """
    tensors = {pretrained.hugging_face_name(name): value.T if name.endswith("/kernel") else value
               for name, value in bert.weights.items()}
    if head:
        hidden = bert.config["hidden_size"]
        tensors |= {
            "bert.pooler.dense.weight": POOLER_SCALE * np.eye(hidden, dtype=np.float32),
            "bert.pooler.dense.bias": np.zeros(hidden, np.float32),
            "classifier.weight": head[0].T / POOLER_SCALE, "classifier.bias": head[1],
        }
    tensors = {name: np.ascontiguousarray(value, np.float32) for name, value in tensors.items()}
    write_whole(folder / "model.safetensors", lambda file: file.write(save(tensors, {"format": "pt"})))
    write_json(folder / "config.json", bert.config | {
        "model_type": "bert", "architectures": ["BertForSequenceClassification" if head else "BertModel"],
        "problem_type": "single_label_classification", "torch_dtype": "float32", "pad_token_id": bert.pad_id,
        "id2label": {str(i): name for i, name in enumerate(classes)}, "label2id": {name: i for i, name in enumerate(classes)},
    } | more)
    write_tokenizer(folder, bert, more.get("maxlen"))


def write_tokenizer(folder, bert, maxlen):
    """Write tokenizer.json, tokenizer_config.json and, for a WordPiece, vocab.txt. maxlen: tokens a text is to be cut to."""
    tokenizer = Tokenizer.from_str(bert.tokenizer.to_str())
    tokenizer.no_truncation()  # the cut is the user's: tokenizer_config.json says how long texts were in training
    write_text(folder / "tokenizer.json", tokenizer.to_str())
    model, around = json.loads(tokenizer.to_str())["model"], tokenizer.encode("").tokens
    unknown = model.get("unk_token") or (tokenizer.id_to_token(model["unk_id"]) if model.get("unk_id") is not None else None)
    named = {"cls_token": around[0], "sep_token": around[-1], "pad_token": tokenizer.id_to_token(bert.pad_id),
             "unk_token": unknown, "mask_token": next(filter(tokenizer.token_to_id, ("[MASK]", "<mask>")), None)}
    write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": maxlen,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        **{name: token for name, token in named.items() if token},
    })
    words = sorted(model["vocab"], key=model["vocab"].get) if model["type"] == "WordPiece" else []
    if words and model["vocab"][words[-1]] == len(words) - 1:  # a file of lines can have no holes
        write_text(folder / "vocab.txt", "\n".join(words) + "\n")


def classifying_graph(classifier, pad_id):
    """A classifier of texts as a graph to give away: (token ids, segment ids) -> {"probabilities": (texts, classes) float32}.

    classifier: Keras model of both -> logits. It takes ids as the tokenizer makes them, padded with pad_id.
    """
    def classify(token_ids, segment_ids):
        return {"probabilities": tf.nn.softmax(classifier([exchange(token_ids, pad_id), segment_ids], training=False))}

    return inference_graph(classify, *TEXTS)


def exchange(token_ids, pad_id):
    """Token ids as the tokenizer makes them -> as bert4keras takes them: pad_id and 0 change places (see `data.encode`)."""
    return tf.where(token_ids == 0, pad_id, tf.where(token_ids == pad_id, 0, token_ids)) if pad_id else token_ids


def write_saved_model(folder, graph):
    """Write a `backend.inference_graph` as the SavedModel `folder`/saved_model, which TensorFlow alone can load."""
    tf.saved_model.save(tf.Module(), str(folder / "saved_model"), signatures=graph)  # a bare module: no Keras is needed


def write_onnx(folder, graph, signature, examples):
    """Write a graph as `folder`/model.onnx, and check that onnxruntime answers `examples` (arrays, by input name) alike.

    Raises InputError if tf2onnx or onnxruntime cannot do it. See `check_packages`.
    """
    import onnxruntime
    import tf2onnx

    path = folder / "model.onnx"
    try:
        tf2onnx.convert.from_function(graph, input_signature=signature, opset=17, output_path=str(path))
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        answers = dict(zip((output.name for output in session.get_outputs()), session.run(None, examples), strict=True))
    except Exception as error:  # neither of the two has a common base of its own
        raise InputError(f"--export onnx: {path.name} cannot be made or not be asked ({reason(error)})") from None
    expected = graph(*map(tf.constant, examples.values()))
    for name, found in answers.items():
        check_equal(f"{path}, {name}", found, expected[name].numpy())


def check_packages(settings):
    """Raise InputError, before anything is trained, if what `export` among the settings asks for is not installed."""
    for package in ("tf2onnx", "onnxruntime") if "onnx" in settings.export else ():
        if importlib.util.find_spec(package) is None:
            raise InputError(f"--export onnx needs the package {package}: pip install tf2onnx onnxruntime")


def check_encoder(read, bert):
    """Raise RuntimeError unless `read`, the BERT read back, has the weights of `bert`."""
    if not all(np.array_equal(read.weights[name], bert.weights[name]) for name in pretrained.expected_shapes(bert.config)):
        raise RuntimeError(f"{read.source} does not hold the weights of the trained model")


def hugging_face_answer(folder, bert, token_ids, segment_ids):
    """What BertForSequenceClassification makes of the files that `write_encoder` wrote: probabilities (texts, classes) float32.

    softmax(W · tanh(P h_[CLS] + p) + b), read back and reckoned here. bert: read from there. token ids as bert4keras takes
    them.
    """
    encoder = pretrained.build_encoder(bert, dropout=0.0)
    with safe_open(folder / "model.safetensors", framework="np") as file:
        pooler, classifier = (
            [file.get_tensor(f"{name}.{part}") for part in ("weight", "bias")] for name in ("bert.pooler.dense", "classifier")
        )
    hidden = encoder.model.predict_on_batch([token_ids, segment_ids])[:, 0]
    pooled = np.tanh(hidden @ pooler[0].T + pooler[1])
    return softmax(pooled @ classifier[0].T + classifier[1], axis=-1)


def check_equal(what, found, expected, tolerance=TOLERANCE):
    """Raise RuntimeError (it is ours to mend) if what stands in student/ answers otherwise than the model that was trained."""
    difference = float(np.abs(np.asarray(found, np.float64) - expected).max())
    if not difference <= tolerance:
        raise RuntimeError(f"{what} differs by {difference:.1e} from the trained model; at most {tolerance:.0e} was expected")


# The model card and the table ------------------------------------------------------------------------------------------


def against_teacher(teacher, student, sizes):
    """Rows of strings, header first: what the student costs and reaches, and that as a share of its teacher.

    teacher, student: records of models. sizes: bytes on disk of their weights, (teacher's, student's).
    """
    rows = [["model", "accuracy %", "MB on disk", "params", "ms @1", "ms @32"]]
    for name, model, size in zip(("teacher", "student"), (teacher, student), sizes, strict=True):
        times = (f"{model['latency_ms'][batch]:.3g}" for batch in ("1", "32"))
        rows.append([f"{name}: {model['name']}" if model["name"] != name else name, f"{100 * model['accuracy']:.2f}",
                     f"{size / 1e6:.3g}", report.count(model["parameters"]), *times])
    faster = (f"{teacher['latency_ms'][batch] / student['latency_ms'][batch]:.1f} x faster" for batch in ("1", "32"))
    rows.append(["", f"{100 * (student['accuracy'] - teacher['accuracy']):+.2f}", f"{sizes[0] / sizes[1]:.1f} x smaller",
                 f"{teacher['parameters'] / student['parameters']:.1f} x fewer", *faster])
    return rows


def model_card(title, paragraphs, table, licence, uses):
    """README.md of student/ in Markdown. licence: an SPDX identifier, or None. uses: lines of Python."""
    front = ["---", "pipeline_tag: text-classification", "tags: [knowledge-distillation, bert]"]
    front += [f"license: {licence.lower()}"] if licence else []
    parts = [f"# {title}", *paragraphs, report.markdown(table), "```python\n" + "\n".join(uses) + "\n```"]
    return "\n".join([*front, "---"]) + "\n\n" + "\n\n".join(parts) + "\n"


# Reading back ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Student:
    """A student/ that was taken away. answer: its graph. tokenizer: makes token ids. classes: names, in order.

    config: entries of config.json; among them maxlen, and for a FastBERT speed and layers.
    """

    answer: object
    tokenizer: Tokenizer
    classes: list
    config: dict

    @property
    def stops_early(self):
        return "speed" in self.config


def load(folder):
    """Read the text classifier in a run's folder or its student/. Raises InputError if anything is missing or does not fit."""
    folder = Path(folder)
    if (folder / "student").is_dir():
        folder = folder / "student"
    if not (folder / "config.json").is_file():
        found = "one that takes images" if (folder / "classes.json").is_file() else "no config.json in it"
        raise InputError(f"{folder}: {found}; expected a run's folder, or its student/, with a classifier of texts")
    for name in ("tokenizer.json", "saved_model/saved_model.pb"):
        if not (folder / name).is_file():
            raise InputError(f"{folder / name} is missing")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        classes = [config["id2label"][str(i)] for i in range(len(config["id2label"]))]
        vocabulary, maxlen, pad_id = (int(config[key]) for key in ("vocab_size", "maxlen", "pad_token_id"))
    except (ValueError, KeyError, TypeError) as error:
        why = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else error
        raise InputError(f"{folder / 'config.json'}: not that of a student ({why})") from None
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # tokenizers raises bare Exception
        raise InputError(f"{folder / 'tokenizer.json'}: not a tokenizer ({error})") from None
    highest = max(tokenizer.get_vocab().values())
    if highest >= vocabulary:
        raise InputError(f"{folder}: the tokenizer's ids go up to {highest}, the model has {vocabulary} embeddings; "
                         "they are not of one model")
    try:
        answer = tf.saved_model.load(str(folder / "saved_model")).signatures["serving_default"]
    except (OSError, KeyError, ValueError, tf.errors.OpError) as error:
        raise InputError(f"{folder / 'saved_model'}: not a readable SavedModel ({reason(error)})") from None
    known = answer.structured_outputs.get("probabilities")
    if known is None or known.shape[-1] != len(classes):
        found = "no probabilities" if known is None else f"probabilities of {known.shape[-1]} classes"
        raise InputError(f"{folder}: the model gives {found}, config.json names {len(classes)}; they are not of one model")
    tokenizer.enable_truncation(maxlen)
    tokenizer.enable_padding(pad_id=pad_id, pad_token=tokenizer.id_to_token(pad_id), pad_to_multiple_of=8)
    return Student(answer, tokenizer, classes, config)


def ask(student, texts, speed=None):
    """What a `Student` answers to texts: {"probabilities": (texts, classes) float32, for a FastBERT "layers_used" (texts,)
    int32 and "uncertainty" (texts,) float32}. speed: of a FastBERT; None takes that of its config.
    """
    ids = tf.constant([encoding.ids for encoding in student.tokenizer.encode_batch_fast(texts)], tf.int32)
    inputs = {"token_ids": ids, "segment_ids": tf.zeros_like(ids)}
    if student.stops_early:
        inputs["speed"] = tf.constant(student.config["speed"] if speed is None else speed, tf.float32)
    return {name: value.numpy() for name, value in student.answer(**inputs).items()}
