"""The grounds: data sets with the settings that suit them, in one place for all scripts; each is a preset of theirs.

What was searched for them, and how far, stands in the notes of the runs `bert-…` in results/runs/; of FastBERT in those of
`fastbert-…`.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Ground:
    """What a data set wants, whatever the method. For its fields see the scripts' settings."""

    data: str
    train_examples: int
    unlabelled_examples: int
    maxlen: int
    batch_size: int = 32
    test_examples: int = 0
    bert: str = "minilm-l6"
    unlabelled_steps: int = 320
    teacher_epochs: int = 15
    student_epochs: int = 25  # on the labelled texts alone
    teacher_learning_rate: float = 2e-4
    branch_epochs: int = 4  # of FastBERT, on all texts


GROUNDS = {
    "20newsgroups": Ground("20newsgroups", 600, 0, maxlen=128, test_examples=2000),
    "clinc150": Ground(
        "clinc150", 4500, 0, maxlen=24, unlabelled_steps=1000, student_epochs=8, teacher_epochs=6, branch_epochs=15,
    ),
    "book-review": Ground(  # searched with a smaller BERT, of 384; none of 768 was at hand
        "book-review", 400, 8000, maxlen=64, bert="chinese-bert-base", unlabelled_steps=1320, teacher_epochs=6,
        teacher_learning_rate=5e-5,
    ),
}


def on_grounds(settings, **names):
    """{ground: these settings, and in them what the ground wants}; for what a script has no setting it is left out.

    settings: a script's
    names: what it calls a field, where it has another name for it
    """
    wanted = {ground: {names.get(field, field): value for field, value in vars(GROUNDS[ground]).items()} for ground in GROUNDS}
    return {
        ground: replace(settings, **{field: value for field, value in fields.items() if hasattr(settings, field)})
        for ground, fields in wanted.items()
    }
