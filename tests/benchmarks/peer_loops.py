"""Other libraries distil the same student from the same teacher: python tests/benchmarks/peer_loops.py WAY FOLDER SEED.

Started by `tests.benchmarks.peers`, which writes FOLDER, with a Python that has the packages of PACKAGES; nothing of this
repository is imported. Each way is what its documentation shows, with its defaults where FOLDER/task.json says nothing. Prints
one line of JSON: seconds of training, and the class that each test text is given.
"""

import json
import logging
import os
import sys
import time
import warnings
from pathlib import Path

import numpy as np

PACKAGES = {
    "transformers": ("torch", "transformers", "accelerate"),
    "textbrewer": ("torch", "transformers", "textbrewer"),
    "keras": ("keras", "keras_hub", "tensorflow", "tensorflow_text"),
}
CHECKED = 64  # test texts


def task_of(folder):
    """(task.json, {part: [token ids of each text]}, {part: labels})."""
    arrays = np.load(folder / "texts.npz")
    ids = {part: np.split(arrays[f"{part}_ids"], arrays[f"{part}_offsets"][1:-1]) for part in ("train", "test")}
    return json.loads((folder / "task.json").read_text("utf-8")), ids, {part: arrays[f"{part}_labels"] for part in ids}


def check_teacher(task, answers):
    """Refuse a teacher that does not answer test texts as it did in the run that trained it. answers: to the first CHECKED"""
    if list(answers) != task["teacher_answers"][:CHECKED]:
        sys.exit("the teacher answers otherwise than in its run")


# PyTorch -----------------------------------------------------------------------------------------------------------------


def torch_models(task, ids, seed):
    """(teacher, student) of transformers; the student is the teacher's first layers and its classifier."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.set_seed(seed)
    teacher = transformers.BertForSequenceClassification.from_pretrained(task["teacher"]).eval().requires_grad_(False)
    check_teacher(task, torch_answers(teacher, ids["test"][:CHECKED]))
    student = transformers.BertForSequenceClassification.from_pretrained(
        task["teacher"], num_hidden_layers=task["layers"], hidden_dropout_prob=task["dropout"],
        attention_probs_dropout_prob=task["dropout"],
    )
    return teacher, student


def padded(examples):
    """A batch of (token ids, label), padded to its longest text, as transformers' collators pad."""
    import torch

    longest = max(len(ids) for ids, _ in examples)
    ids, mask = np.zeros((2, len(examples), longest), np.int64)
    for row, (its, _) in enumerate(examples):
        ids[row, : len(its)], mask[row, : len(its)] = its, 1
    labels = torch.tensor([int(label) for _, label in examples])
    return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask), "labels": labels}


def torch_answers(model, ids, batch_size=32):
    """The class of each text."""
    import torch

    model.eval()
    found = []
    with torch.inference_mode():
        for start in range(0, len(ids), batch_size):
            batch = padded([(its, 0) for its in ids[start : start + batch_size]])
            found.append(model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.argmax(-1).numpy())
    return np.concatenate(found)


def with_transformers(folder, task, ids, labels, seed):
    """transformers' Trainer, the loss of which is the usual override: cross-entropy plus T² · KL(teacher || student)."""
    import torch
    import transformers
    from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

    teacher, student = torch_models(task, ids, seed)

    class Distilling(transformers.Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, **_):
            targets, t = inputs.pop("labels"), task["temperature"]
            outputs = model(**inputs)
            with torch.no_grad():
                soft = softmax(teacher(**inputs).logits / t, dim=-1)
            divergence = kl_div(log_softmax(outputs.logits / t, dim=-1), soft, reduction="batchmean")
            loss = task["hard_weight"] * cross_entropy(outputs.logits, targets) + task["soft_weight"] * t**2 * divergence
            return (loss, outputs) if return_outputs else loss

    arguments = transformers.TrainingArguments(
        output_dir=str(folder / "transformers"), per_device_train_batch_size=task["batch_size"], seed=seed, use_cpu=True,
        num_train_epochs=task["epochs"], learning_rate=task["learning_rate"], lr_scheduler_type="linear", save_strategy="no",
        logging_strategy="no", report_to="none", disable_tqdm=True, remove_unused_columns=False,
    )
    examples = [*zip(ids["train"], labels["train"], strict=True)]
    trainer = Distilling(student, arguments, data_collator=padded, train_dataset=examples)
    start = time.perf_counter()
    trainer.train()
    return time.perf_counter() - start, torch_answers(student, ids["test"])


def with_textbrewer(folder, task, ids, labels, seed):
    """TextBrewer's GeneralDistiller on logits and labels, as in its quick start; its loss has no T², so the weight has it."""
    import torch
    import transformers
    from textbrewer import DistillationConfig, GeneralDistiller, TrainingConfig

    teacher, student = torch_models(task, ids, seed)

    def adaptor(batch, outputs):
        return {"logits": outputs.logits, "losses": outputs.loss}

    steps = task["epochs"] * -(-len(ids["train"]) // task["batch_size"])
    batches = torch.utils.data.DataLoader(
        [*zip(ids["train"], labels["train"], strict=True)], batch_size=task["batch_size"], shuffle=True, collate_fn=padded,
    )
    distiller = GeneralDistiller(
        TrainingConfig(output_dir=str(folder / "textbrewer"), device="cpu"),
        DistillationConfig(temperature=task["temperature"], hard_label_weight=task["hard_weight"],
                           kd_loss_weight=task["soft_weight"] * task["temperature"] ** 2),
        teacher, student, adaptor, adaptor,
    )
    optimizer = torch.optim.AdamW(student.parameters(), lr=task["learning_rate"], weight_decay=0.0)
    start = time.perf_counter()
    with distiller:
        distiller.train(
            optimizer, batches, num_epochs=task["epochs"], scheduler_class=transformers.get_linear_schedule_with_warmup,
            scheduler_args={"num_warmup_steps": 0, "num_training_steps": steps},
        )
    return time.perf_counter() - start, torch_answers(student, ids["test"])


# Keras 3 -----------------------------------------------------------------------------------------------------------------


def with_keras(folder, task, ids, labels, seed):
    """keras.distillation.Distiller on KerasHub's BERT; texts are padded to one length, as KerasHub's preprocessors do."""
    import keras
    import keras_hub
    from safetensors.numpy import load_file

    keras.utils.set_random_seed(seed)
    teacher = keras_hub.models.BertTextClassifier.from_preset(task["teacher"], num_classes=task["classes"], preprocessor=None)
    head = load_file(Path(task["teacher"]) / "model.safetensors")  # which KerasHub does not read
    teacher.output_dense.set_weights([head["classifier.weight"].T, head["classifier.bias"]])
    check_teacher(task, teacher.predict(_fixed(ids["test"][:CHECKED], task["maxlen"]), verbose=0).argmax(-1))
    config = {key: value for key, value in teacher.backbone.get_config().items() if key not in ("name", "trainable")}
    shallow = keras_hub.models.BertBackbone(**config | {"num_layers": task["layers"], "dropout": task["dropout"]})
    student = keras_hub.models.BertTextClassifier(shallow, task["classes"], preprocessor=None, dropout=task["dropout"])
    for layer in shallow.layers:
        layer.set_weights(teacher.backbone.get_layer(layer.name).get_weights())
    student.output_dense.set_weights(teacher.output_dense.get_weights())
    steps = task["epochs"] * -(-len(ids["train"]) // task["batch_size"])
    distiller = keras.distillation.Distiller(
        teacher, student, keras.distillation.LogitsDistillation(temperature=task["temperature"]),
        student_loss_weight=task["hard_weight"] / (task["hard_weight"] + task["soft_weight"]),
    )
    distiller.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.PolynomialDecay(task["learning_rate"], steps, 0.0)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    start = time.perf_counter()
    distiller.fit(_fixed(ids["train"], task["maxlen"]), labels["train"], batch_size=task["batch_size"], epochs=task["epochs"],
                  verbose=0)
    seconds = time.perf_counter() - start
    return seconds, student.predict(_fixed(ids["test"], task["maxlen"]), verbose=0).argmax(-1)


def _fixed(ids, maxlen):
    """Texts as KerasHub's BERT takes them."""
    tokens = np.zeros((len(ids), maxlen), np.int32)
    for row, its in enumerate(ids):
        tokens[row, : len(its)] = its
    lengths = np.array([len(its) for its in ids])[:, None]
    return {"token_ids": tokens, "segment_ids": np.zeros_like(tokens), "padding_mask": np.arange(maxlen) < lengths}


WAYS = {"transformers": with_transformers, "textbrewer": with_textbrewer, "keras": with_keras}


if __name__ == "__main__":
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow", "HF_HUB_OFFLINE": "1"}
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    way, place, number = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    took, answers = WAYS[way](place, *task_of(place), number)
    print(json.dumps({"seconds": took, "answers": answers.tolist()}))
