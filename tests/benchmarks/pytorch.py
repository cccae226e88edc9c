"""A classifier of texts as people ask it with PyTorch, and with onnxruntime by what PyTorch exports.

PyTorch is no requirement of this repository: see `missing`.
"""

import contextlib
import importlib.util
import io
import logging
import warnings
from importlib.metadata import version

from onnx import TensorProto
from onnxruntime.quantization import quantize_dynamic
from onnxruntime.transformers import optimizer

from data import berts

PACKAGES = ("torch", "transformers", "onnxscript")
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
AXES = {name: {0: "texts", 1: "tokens"} for name in INPUTS}  # that are of any length


def missing():
    """Those of PACKAGES that are not installed."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def write(folder, bert, classes):
    """Write a classifier as Hugging Face lays it out, and what PyTorch and onnxruntime make of that.

    PyTorch exports it as it does unless told otherwise. onnxruntime's optimizer puts operators of onnxruntime in the place of
    several of ONNX's; that of attention it finds only where the former exporter has written transformers' "eager" attention. So
    it gets this, and is as fast as it can be.

    folder: Path
    bert: a `data.berts.Bert` that is a classifier
    classes: names

    Returns {what it is, in words: Path}; `in_pytorch` takes the first one.
    """
    berts.save(folder, bert, classes)
    plain, fusible, optimized, int8 = (folder / f"{name}.onnx" for name in ("plain", "fusible", "optimized", "int8"))
    heads, hidden = (bert.config[key] for key in ("num_attention_heads", "hidden_size"))
    with quietly():
        export(folder, plain, dynamic_shapes=AXES)
        export(folder, fusible, attention="eager", dynamo=False, dynamic_axes=AXES)
        optimizer.optimize_model(str(fusible), "bert", heads, hidden).save_model_to_file(str(optimized))
        quantize_dynamic(optimized, int8, per_channel=True, extra_options={"DefaultTensorType": TensorProto.FLOAT})
    return {"PyTorch": folder / "model.safetensors", "PyTorch's export": plain, "that, optimized": optimized,
            "that, int8": int8}


def export(folder, path, attention=None, **how):
    """Write what PyTorch exports of the classifier in a folder: its INPUTS -> logits.

    path: of the ONNX file
    attention: implementation that transformers is to take instead of its own choice
    how: further arguments of torch.onnx.export
    """
    import torch

    examples = {name: torch.ones((2, 8), dtype=torch.long) for name in INPUTS}  # not the same one, or it has only one input
    torch.onnx.export(load(folder, attention), (), str(path), kwargs=examples, input_names=[*INPUTS], output_names=["logits"],
                      external_data=False, **how)


def load(folder, attention=None):
    """transformers' model of the files in a folder. attention: as of `export`"""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    return transformers.BertForSequenceClassification.from_pretrained(folder, attn_implementation=attention).eval()


@contextlib.contextmanager
def quietly():
    """A block that does not say which features are old, which packages it could have used, and how far it has come."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)


def in_pytorch(path):
    """What asks the classifier beside `path`: {INPUTS: (texts, tokens) int64 arrays} -> {"logits": array}."""
    import torch

    model = load(path.parent)

    def ask(inputs):
        with torch.inference_mode():
            return {"logits": model(**{name: torch.from_numpy(inputs[name]) for name in INPUTS}).logits.numpy()}

    return ask


def about(path):
    """What `in_pytorch` asks, in a line: versions, threads, attention."""
    import torch

    return (f"torch {version('torch')}, transformers {version('transformers')}: {torch.get_num_threads()} threads, attention "
            f"{load(path.parent).config._attn_implementation}")
