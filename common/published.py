"""What xv44586/Knowledge-Distillation-NLP and the papers report and claim, for RESULTS.md to hold against what was found."""

PUBLISHED = {  # {script: (what its figures are, {row: figure})}
    "knowledge_distillation_from_scratch": (
        "The notebook: CIFAR-10, one run. Its distilled student was never measured on test images (46.98 is of training ones). "
        "On other data comparable in kind only.",
        {"teacher": "70.23", "alone": "43.17"},
    ),
    "knowledge_distillation_bert": (
        "The script: IFLYTEK, 119 classes, Chinese BERT-base, 12 -> 3 layers, 128 tokens, one run, its epoch chosen on the "
        "very dev part it reports, and from before a fix of its code. On other data comparable in kind only.",
        {"teacher": "60.21", "alone": "58.14", "distilled": "60.14", "alone-self-distilled": "59.6",
         "teacher-self-distilled": "61.07", "noise": "58.4"},
    ),
    "knowledge_distillation_bert_of_theseus": (
        "The script: IFLYTEK, 119 classes, Chinese BERT-base, 12 -> 3 layers (`middle`: 6), 128 tokens, one run, its epoch "
        "chosen on the very dev part it reports; `theseus-random` is its blog's 12 -> 3. On other data comparable in kind "
        "only.",
        {"predecessor": "60.7", "middle": "59.1", "successor": "57.9", "theseus": "59.5", "theseus-additive": "59.5",
         "theseus-random": "59.3"},
    ),
}
FASTBERT = {  # of the paper: {data: {speed: (accuracy less that of BERT, FLOPs speed-up)}}
    "ChnSentiCorp": {0.1: (0.00, 2.02), 0.5: (-3.25, 6.82), 0.8: (-5.50, 9.40)},
    "Book review": {0.1: (0.00, 1.60), 0.5: (-0.24, 4.21), 0.8: (-1.74, 7.23)},
    "THUCNews": {0.1: (0.00, 6.05), 0.5: (-1.07, 11.0), 0.8: (-1.74, 11.7)},
    "Ag.news": {0.1: (-0.09, 3.62), 0.5: (-1.34, 10.3), 0.8: (-1.94, 11.7)},
}
CLAIMS = (  # (who says so, what, better model, worse model, points reported)
    ("original", "a student gains from its teacher's soft labels", "distilled", "alone", "+2.0 (BERT), +0.19 (images)"),
    ("Hinton et al.", "most where the student sees few images", "distilled-50-images", "alone-50-images", ""),
    ("Hinton et al.", "", "distilled-500-images", "alone-500-images", ""),
    ("Turc et al.", "soft labels of texts without labels help", "distilled-unlabelled", "alone", ""),
    ("original", "a student gains from its own soft labels", "alone-self-distilled", "alone", "+1.5"),
    ("original", "a teacher gains from its own soft labels", "teacher-self-distilled", "teacher", "+0.9"),
    ("original", "noise is no substitute for a teacher", "distilled", "noise", "+1.7"),
    ("original, Xu et al.", "replacing is better than fine-tuning", "theseus", "successor", "+1.6; +2.2 (paper, GLUE)"),
    ("", "", "theseus-additive", "successor", "+1.6"),
    ("", "", "theseus-random", "successor", "+1.4"),
    ("Xu et al.", "a rising rate is better than a constant one", "theseus-random-linear", "theseus-random", "all 8 tasks"),
    ("original", "adding is better than drawing", "theseus-additive", "theseus-random", "+0.2"),
    ("Liu et al.", "branches taught by the teacher beat joint training", "fastbert", "fastbert-joint", ""),
    ("original", "branches gain from the labels too", "fastbert-labels", "fastbert", ""),
)
