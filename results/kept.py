"""What students keep of their teachers: on each ground, the best student at each speed, and all of them."""

from collections import Counter
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np

from common.linear import LINEAR
from report.tables import by_name, count, difference_cells, mean_and_deviation
from results.comparison import timed_beside
from results.grounds import ground_of, tried_only
from results.methods import method_of
from results.stored import compared, correct_of

TIMES = (2, 5, 15)  # as fast as the teacher, for one text: what is asked of students
HEADER = [
    "student", "run", "seeds", "accuracy %", "of the teacher's", "less the teacher", "95 % interval", "x @1", "x @32", "params",
    "over linear",
]


@dataclass(frozen=True)
class Student:
    """A student of a run, over its seeds."""

    data: str
    validation: float  # accuracy there, the mean over seeds
    faster: float  # times as fast as its teacher, for one text
    seeds: int
    validated: tuple  # what the linear model reached there in each seed: where this is alike, the validation texts are
    cells: list  # of HEADER


def all_students(runs):
    """{ground: [Student]}: what every run on a ground has trained to be smaller than its teacher."""
    grounds, tried = {}, tried_only(runs)
    for name, results in runs.items():
        method = method_of(results)
        models = dict(by_name(results["models"]))
        if not method.alone or method.teacher not in models or LINEAR not in models or name in tried:
            continue
        students = [title for title in method.compared if title in models and title != LINEAR]
        make = partial(_student, name, results, models[method.teacher], models[LINEAR])
        made = map(make, students, map(models.get, students))
        grounds.setdefault(ground_of(results)[:2], []).extend(made)  # of whatever number of tokens
    return {ground: students for ground, students in grounds.items() if students}


def _student(run, results, teachers, linear, title, records):
    """The Student of some records. teachers, linear: records of the run's teacher and linear model, over the same seeds."""
    def mean(group, key):
        return np.mean([record[key] for record in group])

    correct = correct_of(results, title)
    less, over = (compared(correct, correct_of(results, other)) for other in (teachers[0]["name"], LINEAR))
    share = 100 * mean(records, "accuracy") / mean(teachers, "accuracy")
    faster = timed_beside(records, teachers, "latency_ms")
    cells = [
        title, run, str(len(less["seeds"])), mean_and_deviation([record["accuracy"] for record in records], 100),
        f"{share:.1f} %", *difference_cells(less)[:2], f"{faster['1']:.1f}", f"{faster['32']:.1f}",
        count(records[0]["parameters"]), difference_cells(over)[0],
    ]
    data, validation = Path(results["data"]["name"]).name, mean(records, "validation_accuracy")
    validated = tuple((record["seed"], record["validation_accuracy"]) for record in linear)
    return Student(data, validation, faster["1"], len(less["seeds"]), validated, cells)


def best_table(grounds):
    """Rows of strings, header first: at each of TIMES, the student that is best on validation, of those of the most seeds.

    Other seeds have other validation texts, and so may other runs, of which then those count that have the most students: means
    over unlike texts cannot be held against each other. grounds: `all_students`.
    """
    table = [["data", "at least", *HEADER]]
    for students in grounds.values():
        most = max(student.seeds for student in students)
        students = [student for student in students if student.seeds == most]
        (usual, _), = Counter(student.validated for student in students).most_common(1)
        students = [student for student in students if student.validated == usual]

        def best(times, students=students):
            return max((student for student in students if student.faster >= times), key=lambda student: student.validation)

        reached = [times for times in TIMES if any(student.faster >= times for student in students)]
        for student, several in groupby(reached, best):
            table.append([student.data, f"{' and '.join(map(str, several))} x", *student.cells])
    return table


def students_of(grounds):
    """[(data, rows of strings, header first)] of all students, the best on validation first. grounds: `all_students`."""
    by_validation = [sorted(students, key=lambda student: -student.validation) for students in grounds.values()]
    header = [*HEADER, "validation %"]
    return [
        (students[0].data, [header, *([*student.cells, f"{100 * student.validation:.1f}"] for student in students)])
        for students in by_validation
    ]
