"""`python -m common.cascade STUDENT TEACHER --file TEXTS`: the name by which users know `export.cascade`."""

from export.cascade import start

if __name__ == "__main__":
    start()
