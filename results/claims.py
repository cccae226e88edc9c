"""What is claimed of these methods, held against every run that has both of the models a claim is about.

A run that differs from another in one setting, and is named after it, has a row where that one has none or finds otherwise.
"""

from report.tables import difference_cells
from results.stored import compared, correct_of

CLAIMS = (  # (what, who says so, [(better row, worse row, points reported)])
    ("a student gains from its teacher's soft labels", "original",
     [("distilled", "alone", "+2.0 (BERT), +0.19 (images, on validation)")]),
    ("also where the student sees few images", "Hinton et al.",
     [("distilled-50-images", "alone-50-images", ""), ("distilled-500-images", "alone-500-images", "")]),
    ("soft labels of texts without labels help", "Turc et al.", [("distilled-unlabelled", "alone", "")]),
    ("so do those of texts made by masks and n-grams", "Tang et al.",
     [("distilled-augmented", "alone", ""), ("distilled-augmented", "distilled", "")]),
    ("a student gains from its teacher's layers", "Jiao et al.", [("distilled-layers", "alone", "")]),
    ("also beyond soft labels", "Jiao et al.", [("distilled-layers", "distilled-unlabelled", "")]),
    ("a BiLSTM learns from a BERT", "Tang et al.", [("bilstm-distilled", "bilstm-alone", "")]),
    ("a student gains from its own soft labels", "original", [("alone-self-distilled", "alone", "+1.5")]),
    ("a teacher gains from its own soft labels", "original", [("teacher-self-distilled", "teacher", "+0.9")]),
    ("noise is no substitute for a teacher", "original", [("distilled", "noise", "+1.7")]),
    ("replacing is better than fine-tuning", "original, Xu et al.",
     [("theseus", "successor", "+1.6; +2.2 (paper, GLUE)"), ("theseus-additive", "successor", "+1.6"),
      ("theseus-random", "successor", "+1.4")]),
    ("a rising rate is better than a constant one", "Xu et al.",
     [("theseus-random-linear", "theseus-random", "all 8 tasks")]),
    ("adding is better than drawing", "original", [("theseus-additive", "theseus-random", "+0.2")]),
    ("branches taught by the teacher beat joint training", "Liu et al.", [("fastbert", "fastbert-joint", "")]),
    ("branches gain from the labels too", "original", [("fastbert-labels", "fastbert", "")]),
)


def claims_table(runs, marked=(), variant_of=None):
    """Rows of strings, header first: each claim, and what each run that can say has found.

    runs: {name: results}
    marked: names of runs with a †
    variant_of: {name of a run: name of the run it differs from in one setting}
    """
    variant_of = variant_of or {}
    table = [["claim", "reported", "run", "seeds", "A - B", "points", "95 % interval", "p", "here"]]
    for what, who, pairs in CLAIMS:
        claim = f"{what} ({who})"
        for a, b, reported in pairs:
            for name, results in runs.items():
                said = comparison_of(runs[variant_of[name]], a, b) if name in variant_of else None
                comparison = comparison_of(results, a, b)
                if comparison and not (said and verdict(said) == verdict(comparison)):
                    run, seeds = f"{name} †" if name in marked else name, str(len(comparison["seeds"]))
                    cells = [run, seeds, f"{a} - {b}", *difference_cells(comparison)]
                    table.append([claim, reported, *cells, verdict(comparison)])
                    claim = reported = ""  # they stand once
    return table


def comparison_of(results, a, b):
    """A - B in one run; of models that stop early by the mean of their branches, since their chosen speeds differ in cost."""
    if {a, b} <= {record["name"] for record in results["models"] if "exits" in record}:
        pairs = {(each["a"], each["b"]): each for each in results.get("branch_comparisons", ())}
        return pairs.get((a, b)) or swapped(pairs.get((b, a)))
    return compared(correct_of(results, a), correct_of(results, b))


def swapped(comparison):
    """B - A of a comparison A - B."""
    return comparison and comparison | {
        "difference": -comparison["difference"], "ci95": [-bound for bound in comparison["ci95"][::-1]],
    }


def verdict(comparison):
    """In a word whether A is better than B."""
    low, high = comparison["ci95"]
    word = "holds" if low > 0 else "the reverse holds" if high < 0 else "open"
    return word if len(comparison["seeds"]) > 1 or word == "open" else f"{word}, of two models"
