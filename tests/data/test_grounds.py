"""data.grounds: one place for what a data set wants, the same in all three BERT scripts."""

import pytest

import knowledge_distillation_bert as bert
import knowledge_distillation_bert_of_theseus as theseus
import knowledge_distillation_fastbert as fastbert
from data.grounds import GROUNDS
from data.sources import SOURCES


@pytest.mark.parametrize("name", GROUNDS)
def test_scripts_have_the_settings_of_a_ground(name):
    ground = GROUNDS[name]
    for script, teacher in ((bert, "teacher"), (theseus, "predecessor"), (fastbert, "teacher")):
        settings = script.PRESETS[name]
        assert (settings.data, settings.bert, settings.maxlen) == (ground.data, ground.bert, ground.maxlen)
        assert (settings.train_examples, settings.test_examples) == (ground.train_examples, ground.test_examples)
        assert getattr(settings, f"{teacher}_epochs") == ground.teacher_epochs
        assert getattr(settings, f"{teacher}_learning_rate") == ground.teacher_learning_rate
        assert settings.patience == script.PRESETS["demo"].patience > 0  # what the ground does not want is the demo's
    assert bert.PRESETS[name].unlabelled_examples == fastbert.PRESETS[name].unlabelled_examples == ground.unlabelled_examples
    texts = ground.train_examples + (ground.unlabelled_examples or 10_495)  # all of clinc150's, and about those of 20newsgroups
    assert bert.PRESETS[name].unlabelled_steps * bert.PRESETS[name].batch_size >= 0.9 * texts  # nearly all are read
    assert fastbert.PRESETS[name].teacher_head == "dense"  # one teacher for all methods
    assert SOURCES[ground.data].kind == "texts" and SOURCES[ground.bert].kind == "bert"


def test_what_the_originals_and_the_papers_fix_is_kept():
    for script in (bert, theseus, fastbert):
        for name in {"original", "paper"} & script.PRESETS.keys():
            assert script.PRESETS[name].patience == 0
