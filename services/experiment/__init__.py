"""An experiment file as a checked plan: what a researcher changes, in one YAML file.

The schema (`plan`, and a module for each of its larger sections) is a tree of pydantic models; what they find is worded
(`mistakes`) as one line that names the file, the key, the value and what would have been right.
"""

from services.experiment.data import SCHEMES, Data, Scheme
from services.experiment.files import differences, dump, load
from services.experiment.overrides import Override
from services.experiment.plan import Plan

__all__ = ["SCHEMES", "Data", "Override", "Plan", "Scheme", "differences", "dump", "load"]
