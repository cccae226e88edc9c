"""What the pages have to know of each script: one entry a method. A further method is its script and an entry here."""

from dataclasses import dataclass, field

from results import published
from results.published import Published


@dataclass(frozen=True)
class Method:
    """A script's entry. Its rows are the models of its results.json, by name.

    title: of the method
    teacher: its teacher's row
    alone: the row of the same student trained alone, if there is one
    compared: {row: its name beside the other methods}; one that stops early stands there at the speeds that suit
    unlabelled: rows that learn from the texts without labels, too
    teacher_in_seconds: rows whose training time includes their teacher's
    plots: those to show, of the files that the script writes, without .png
    published: what others report of these rows
    """

    title: str
    teacher: str
    alone: str = ""
    compared: dict[str, str] = field(default_factory=dict)
    unlabelled: tuple[str, ...] = ()
    teacher_in_seconds: tuple[str, ...] = ()
    plots: tuple[str, ...] = ()
    published: Published = published.NOTHING


TAUGHT = ("fastbert", "fastbert-plain", "fastbert-labels", "fastbert-shuffled")  # by a frozen teacher, on all texts
LINEAR = {"linear": "linear, no BERT"}

METHODS = {  # by script, in the order of the pages
    "knowledge_distillation_from_scratch": Method(
        title="Distillation from scratch, on images", teacher="teacher", alone="alone",
        compared={"alone": "trained alone", "distilled": "soft labels"},
        plots=("temperature", "sweeps"), published=published.FROM_SCRATCH,
    ),
    "knowledge_distillation_bert": Method(
        title="A BERT's soft labels", teacher="teacher", alone="alone",
        compared={
            "alone": "trained alone", "distilled": "soft labels", "distilled-unlabelled": "soft labels, unlabelled texts too",
            "distilled-augmented": "soft labels, augmented texts too", "distilled-layers": "the same, after the layers",
            "bilstm-alone": "BiLSTM", "bilstm-distilled": "BiLSTM, logits, unlabelled texts too", **LINEAR,
            "linear-distilled": "linear, the teacher's answers to unlabelled texts",
        },
        unlabelled=("distilled-unlabelled", "distilled-layers", "bilstm-distilled", "linear-distilled"),
        published=published.BERT,
    ),
    "knowledge_distillation_bert_of_theseus": Method(
        title="BERT-of-Theseus", teacher="predecessor", alone="successor",
        compared={
            "successor": "trained alone, as a successor", "unmixed": "started from the teacher", "theseus": "theseus",
            "theseus-additive": "theseus, additive", "theseus-random": "theseus, random",
            "theseus-random-linear": "theseus, random, linear", **LINEAR,
        },
        plots=("replacing",), published=published.THESEUS,
    ),
    "knowledge_distillation_fastbert": Method(
        title="FastBERT", teacher="teacher",
        compared={name: f"{name}, unlabelled texts too" for name in TAUGHT}
        | {name: name for name in ("fastbert-labels-only", "fastbert-joint")} | LINEAR,
        unlabelled=TAUGHT, teacher_in_seconds=(*TAUGHT, "fastbert-labels-only"),
        plots=("exits",), published=published.FASTBERT,
    ),
}


def method_of(results):
    """The entry of the script that wrote a results.json."""
    return METHODS[results["script"]]
