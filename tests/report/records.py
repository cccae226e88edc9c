"""Records as the scripts hand them to the report, and results of a run that has them."""


def model(name, seed=0, accuracy=0.75, deep=False, **changed):
    """A record as a script hands it to the report."""
    latency = {"1": 9.8, "32": 64.4} if deep else {"1": 5.8, "32": 33.3}
    return {
        "name": name, "seed": seed, "layers": 6 if deep else 3, "parameters": 22_570_000, "flops": 1.4e9,
        "latency_ms": latency, "accuracy": accuracy, "macro_f1": accuracy - 0.01, "train_seconds": 123.4,
        "epochs": 2, "history": [{"epoch": e, "loss": 2.0 / e, "val_accuracy": accuracy - 0.1 / e} for e in (1, 2)], **changed,
    }


def comparison(**changed):
    found = {"difference": 0.0123, "ci95": [-0.1, 0.1246], "p_value": 0.04321}
    return {"a": "distilled-unlabelled", "b": "distilled"} | found | changed


def results(seeds=(0,)):
    models = [
        model(name, seed, accuracy + seed / 100, deep=name == "teacher")
        for seed in seeds
        for name, accuracy in (("teacher", 0.76), ("alone", 0.73), ("teacher-self-distilled", 0.75))
    ]
    return {
        "script": "script", "preset": "demo", "settings": {"seeds": list(seeds), "maxlen": 64}, "environment": {"python": "3"},
        "data": {"name": "texts", "classes": 4, "train": 9, "chosen_on": "validation", "notes": [], "descriptions": {}},
        "models": models,
        "comparisons": [comparison(), comparison(p_value=1e-9)],
    }
