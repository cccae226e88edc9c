"""How a run on texts ends: what its models cost, the teacher and the student written, the report, the tables printed."""

from functools import partial

from common.files import load_or_compute
from common.training import trained
from export.costs import in_words, text_costs
from export.deployed import text_model
from export.student import text_writer, write_linear, write_student, write_teacher
from report.document import results_of, write_report


def report_texts(
    script, preset, default, runs, records, linear, shapes, *, pairs, teacher, students, build, story, plots=(),
):
    """Write teacher/, student/ and the report of classifiers of texts that compute all their layers; print the tables.

    script: its name
    preset: the same
    default: the preset's settings
    runs: of all seeds
    records: of the finished stages
    linear: those of the linear models
    shapes: {name of a model: `data.berts.Bert` of its shape}, of all that have a record
    pairs: [(A, B)], names of the models to compare
    teacher: its name
    students: names of those that may be taken away; of equally large ones the plainest first
    build: (run, name) -> BertClassifier, not trained
    story: the script's docstring
    plots: names of further plots in the run's folder, already there
    """
    run, sizes = runs[0], {name: size_of(bert, runs[0].bert) for name, bert in shapes.items()}
    different = {sizes[record["name"]]: shapes[record["name"]] for record in records}  # models of one size cost the same
    costs = load_or_compute(run.folder / f"times-{'-'.join(different)}.json", lambda: text_costs(run, different))
    records = [record | costs[sizes[record["name"]]] for record in records] + linear
    results = results_of(run, script, preset, default, records, pairs)
    write = text_writer(lambda run, best: text_model(trained(run, best["name"], build)))
    students = sorted((name for name in students if name in shapes), key=lambda name: costs[sizes[name]]["flops"])
    student, sections, told = write_student(runs, records, students, teacher, write, story)
    write_teacher(runs, records, teacher, partial(trained, build=build), told.get("student", {}).get("seed"))
    take_away = {"student": student} | write_linear(runs, linear)
    example = in_words(run, records[0]["timed_tokens"])
    write_report(run.folder, results | told, records, example, take_away, sections=sections, plots=plots)


def size_of(bert, whole):
    """A name of a model's size: its layers, and its width if that is not the whole BERT's: "3", "3x192"; or "bilstm"."""
    if bert.kind != whole.kind:
        return bert.kind
    layers, hidden = str(bert.layers), bert.config["hidden_size"]
    return layers if hidden == whole.config["hidden_size"] else f"{layers}x{hidden}"
