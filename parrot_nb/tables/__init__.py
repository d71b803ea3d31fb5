"""Maps over tables: one call per row of a data frame, with each row's value or error, and measures of how good the values are."""

from parrot_nb.tables.comparison import Comparison, compare
from parrot_nb.tables.evaluation import Evaluation, evaluate
from parrot_nb.tables.maps import map_table
from parrot_nb.tables.reduce import reduce
from parrot_nb.tables.rows import Row, Rows
from parrot_nb.tables.trials import Trial, Tuning
from parrot_nb.tables.tuning import tune

__all__ = ["Comparison", "Evaluation", "Row", "Rows", "Trial", "Tuning", "compare", "evaluate", "map_table", "reduce", "tune"]
