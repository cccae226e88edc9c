"""Check a student/ where it is to be used, or a teacher: python tests/check_with_transformers.py FOLDER FILE ANSWERS.

Needs PyTorch and transformers, which are no requirements of this repository, so no test runs it. Prints the greatest
difference between the probabilities of transformers (BertForSequenceClassification, its tokenizer from FOLDER) and those of
`python -m common.predict FOLDER --file FILE --top 1000 --json`; ends with status 1 if it exceeds 1e-5. FILE holds a text a
line, or for a model of pairs two with a tab between.

    python -m common.predict runs/… --file texts.txt --top 1000 --json > answers.jsonl      # in this repository's .venv
    python tests/check_with_transformers.py runs/…/student texts.txt answers.jsonl          # where transformers is
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

if __name__ == "__main__":
    folder, texts, answers = sys.argv[1:]
    lines = Path(texts).read_text(encoding="utf-8").splitlines()
    expected = [json.loads(line)["labels"] for line in Path(answers).read_text(encoding="utf-8").splitlines()]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model, loading = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    print(f"{type(model).__name__}, {type(tokenizer).__name__}, {loading}")
    model.eval()
    greatest, pairs = 0.0, getattr(model.config, "pairs", False)
    for line, labels in zip(lines, expected, strict=True):
        batch = tokenizer(*(line.split("\t") if pairs else [line]), truncation=True, return_tensors="pt")
        with torch.no_grad():
            found = torch.softmax(model(**batch).logits[0], dim=-1)
        for label in labels:
            greatest = max(greatest, abs(float(found[model.config.label2id[label["label"]]]) - label["probability"]))
    print(f"{len(lines)} {'pairs' if pairs else 'texts'}: probabilities differ by {greatest:.1e} at most")
    sys.exit(greatest > 1e-5)
