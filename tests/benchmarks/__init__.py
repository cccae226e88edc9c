"""Ways of working against each other, timed."""

import common.backend  # noqa: F401  before bert4keras is imported, for which it chooses Keras
