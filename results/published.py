"""What xv44586/Knowledge-Distillation-NLP ("the original") and the papers report, to be held against what was found."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Published:
    """Figures of others for a script's rows.

    source: whose they are, of which data and model
    accuracy: {row: per cent}
    speeds: {data: {speed: (points of accuracy less those of the teacher, FLOPs speed-up)}}, of early exit
    """

    source: str = ""
    accuracy: dict[str, str] = field(default_factory=dict)
    speeds: dict[str, dict] = field(default_factory=dict)


NOTHING = Published()
FROM_SCRATCH = Published(
    "the original's notebook: CIFAR-10, one run. Its distilled student was never measured on test images (46.98 is of training "
    "ones). On other data comparable in kind only.",
    {"teacher": "70.23", "alone": "43.17"},
)
BERT = Published(
    "the original's script: IFLYTEK, 119 classes, Chinese BERT-base, 12 -> 3 layers, 128 tokens, one run, its epoch chosen on "
    "the very dev part it reports, and from before a fix of its code. On other data comparable in kind only.",
    {"teacher": "60.21", "alone": "58.14", "distilled": "60.14", "alone-self-distilled": "59.6",
     "teacher-self-distilled": "61.07", "noise": "58.4"},
)
THESEUS = Published(
    "the original's script: IFLYTEK, 119 classes, Chinese BERT-base, 12 -> 3 layers (`middle`: 6), 128 tokens, one run, its "
    "epoch chosen on the very dev part it reports; `theseus-random` is its blog's 12 -> 3. On other data comparable in kind "
    "only.",
    {"predecessor": "60.7", "middle": "59.1", "successor": "57.9", "theseus": "59.5", "theseus-additive": "59.5",
     "theseus-random": "59.3"},
)
FASTBERT = Published(
    "Liu et al. 2020, arXiv 2004.02178 (12-layer BERT-base, other data)",
    speeds={
        "ChnSentiCorp": {0.1: (0.00, 2.02), 0.5: (-3.25, 6.82), 0.8: (-5.50, 9.40)},
        "Book review": {0.1: (0.00, 1.60), 0.5: (-0.24, 4.21), 0.8: (-1.74, 7.23)},
        "THUCNews": {0.1: (0.00, 6.05), 0.5: (-1.07, 11.0), 0.8: (-1.74, 11.7)},
        "Ag.news": {0.1: (-0.09, 3.62), 0.5: (-1.34, 10.3), 0.8: (-1.94, 11.7)},
    },
)
