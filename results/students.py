"""What the students to take away gain over their teachers, and what their files cost in points."""

from data.students import FLOAT32, INT8
from report.tables import difference_cells
from results.stored import teacher_of


def students_table(runs):
    """Rows of strings, header first: the student of each run that has one of texts, as its smallest file.

    runs: {name: results}
    """
    rows = [["run", "student", "tokens", "MB", "x smaller", "x @1", "x @32", "seeds", "fewer tokens, points", "int8, points"]]
    for name, results in runs.items():
        student = results.get("student", {})
        teacher = teacher_of(results, student.get("seed"))
        if not student.get("files") or not teacher:
            continue
        file = student["files"][-1]
        faster = (f"{teacher['latency_ms'][size] / file['latency_ms'][size]:.1f}" for size in ("1", "32"))
        points = []
        for each in (FLOAT32, INT8):
            difference, interval, _ = difference_cells(student["differences"].get(each))
            points.append(f"{difference} ({interval})" if difference else "not written")
        rows.append([
            name, student["name"], f"{student['tokens']:,}", f"{file['bytes'] / 1e6:.3g}",
            f"{4 * teacher['parameters'] / file['bytes']:.1f}", *faster, str(len(results["settings"]["seeds"])), *points,
        ])
    return rows
