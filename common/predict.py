"""`python -m common.predict runs/… "text" …`: the name by which users know `export.predict`."""

from export.predict import start

if __name__ == "__main__":
    start()
