"""Hold this checkout against another: tiny runs of every script, with all their rows, must leave the same weights and figures.

    python -m tests.equal_weights OTHER      # a checkout of the state before a change that must not change any figure

For whoever moves code without meaning to change what it computes. Compared are all arrays of every stage, bit for bit, and
results.json but for timings.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from tests import survival, tiny
from tests.starting import ROOT

TEXTS = "--maxlen 16 --train-examples 96 --validation-examples 16"
RUNS = {  # name of a run: (script, words)
    "bert": ("knowledge_distillation_bert", f"""{TEXTS} --unlabelled-examples 32
        --student-layers 2 --teacher-epochs 2 --student-epochs 2
        --unlabelled-steps 20 --student-dropout 0.1 --seeds 0 1 --experiments teacher alone distilled distilled-unlabelled
        alone-self-distilled teacher-self-distilled noise"""),
    "bert-narrow": ("knowledge_distillation_bert", f"""{TEXTS} --unlabelled-examples 32
        --student-layers 2 --teacher-epochs 1 --student-epochs 1
        --unlabelled-steps 10 --student-init teacher-spread --precision mixed_bfloat16 --schedule constant"""),
    "theseus": ("knowledge_distillation_bert_of_theseus", f"""{TEXTS} --student-layers 2 --middle-layers 3
        --predecessor-epochs 2 --mixed-epochs 2 --direct-epochs 2 --successor-epochs 1 --successor-dropout 0.1 --experiments
        predecessor middle successor unmixed theseus theseus-additive theseus-random theseus-random-linear"""),
    "theseus-embeddings": ("knowledge_distillation_bert_of_theseus", f"""{TEXTS} --student-layers 3 --middle-layers 3
        --predecessor-epochs 1 --mixed-epochs 2 --direct-epochs 1 --successor-epochs 0 --mix-embeddings --replacing random
        --replacing-schedule linear --weight-decay 0.01 --successor-init pretrained --experiments theseus"""),
    "fastbert": ("knowledge_distillation_fastbert", f"""{TEXTS} --unlabelled-examples 32
        --teacher-epochs 2 --student-epochs 2 --branch-epochs 2
        --timed-examples 8 --speeds 0 0.5 0.9 1 --hard-weight 0.5 --experiments fastbert fastbert-plain fastbert-labels
        fastbert-labels-only fastbert-shuffled fastbert-joint"""),
    "fastbert-dense": ("knowledge_distillation_fastbert", f"""{TEXTS} --unlabelled-examples 32
        --teacher-epochs 1 --student-epochs 1 --branch-epochs 2
        --timed-examples 8 --speeds 0 0.5 1 --teacher-head dense --direction teacher-student --shuffle-sentences
        --teacher-layers 3 --uncertainty-top-k 2 --student-layers 1 2"""),
    "from-scratch": ("knowledge_distillation_from_scratch", """--train-examples 200 --validation-examples 40 --teacher-epochs 3
        --student-epochs 3 --seeds 0 1 --train-examples-sweep 50 --temperature-sweep 1 5 --omit-class 3"""),
}


def run(checkout, name, folder):
    """Start the run `name` with the script of a checkout; it writes into `folder`/`name`.

    checkout: Path of a folder with the scripts.
    name: a key of RUNS.
    folder: Path, with the texts and the tiny BERT that `survival.prepare` makes beside it.
    """
    script, words = RUNS[name]
    words = ["--output", folder / name, *words.split()]
    if script != "knowledge_distillation_from_scratch":
        words += ["--data", folder.parent / "data", "--bert", folder.parent / "bert"]
    subprocess.run([sys.executable, f"{script}.py", *map(str, words)], check=True, capture_output=True, cwd=checkout)


def main(other):
    """Run everything in both checkouts and print what differs. Returns how many runs do."""
    different = 0
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        tiny.write_bert(place / "bert")
        tiny.write_data(place / "data")
        for name in RUNS:
            for folder, checkout in (("before", other), ("after", ROOT)):
                run(checkout, name, place / folder)
            files = survival.differences(place / "before" / name, place / "after" / name)
            different += bool(files)
            print(f"{name:<20}  {', '.join(files) or 'the same in every weight and figure'}", flush=True)
    return different


if __name__ == "__main__":
    sys.exit(bool(main(Path(sys.argv[1]).resolve())))
