"""The site: `sphinx-build -n -W --keep-going -c .site . .site/html` from the top of a clone.

The pages stay where the code is: `PAGES` names them and their addresses, and a page that does not exist is left out.
"""

import os
import sys
from importlib.metadata import version as installed
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

PAGES = {
    "": {"index": "README.md"},
    "Use": {
        "agents/index": "agents/README.md",
        "agents/default": "agents/DEFAULT.md",
        "agents/evaluation": "agents/EVALUATION.md",
        "agents/network": "agents/NETWORK.md",
        "agents/action-masks": "agents/ACTION_MASKS.md",
        "agents/sb3": "agents/SB3.md",
        "agents/export": "agents/EXPORT.md",
        "envs/index": "envs/README.md",
        "configs/index": "configs/README.md",
        "compare": "bistable_rl/compare/README.md",
        "tune": "bistable_rl/tune/README.md",
        "cluster": "bistable_rl/CLUSTER.md",
    },
    "Understand": {
        "cells": "bistable_rl/cells/README.md",
        "kernels": "bistable_rl/kernels/README.md",
        "dynamics": "bistable_rl/dynamics/README.md",
        "analysis": "bistable_rl/analysis/README.md",
        "certify": "bistable_rl/certify/README.md",
    },
    "Measured": {
        "benchmarks": "bistable_rl/benchmarks/README.md",
        "results/index": "bistable_rl/results/README.md",
        "results/memory": "bistable_rl/results/MEMORY.md",
        "results/others": "bistable_rl/results/OTHERS.md",
    },
    "Reference": {
        "reference/commands": ".site/commands.md",
        "reference/keys": ".site/keys.md",
        "reference/layers": ".site/api/layers.md",
        "reference/cells": ".site/api/cells.md",
        "reference/agents": ".site/api/agents.md",
        "reference/envs": ".site/api/envs.md",
        "reference/dynamics": ".site/api/dynamics.md",
        "reference/certify": ".site/api/certify.md",
        "reference/kernels": ".site/api/kernels.md",
        "reference/errors": ".site/api/errors.md",
    },
    "Contribute": {
        "contributing": ".github/CONTRIBUTING.md",
        "design": "bistable_rl/README.md",
        "changelog": ".github/CHANGELOG.md",
    },
}
"""The pages by the caption of the table of contents that lists them: address on the site, file in the repository."""

project = "bistable-rl"
version = release = installed("bistable-rl")
author = copyright = "The bistable-rl authors"
repository = "https://github.com/" + os.environ.get("GITHUB_REPOSITORY", "bistable-rl/bistable-rl")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "pages",  # the rest are files of this folder
    "reference",
]
root_doc = "index"
source_suffix = {".md": "markdown"}
nitpicky = True
myst_heading_anchors = 4
myst_enable_extensions = ["dollarmath"]
suppress_warnings = ["myst.header"]  # a page may begin at any level

default_role = "code"  # `x` in a docstring
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Options", "params_style")]
napoleon_use_ivar = True
toc_object_entries_show_parents = "hide"
add_module_names = False
python_maximum_signature_line_length = 88

if os.environ.get("SITE_ONLINE"):  # links into other projects' references, whose inventories are on the network
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
        "gymnasium": ("https://gymnasium.farama.org", None),
        "stable_baselines3": ("https://stable-baselines3.readthedocs.io/en/master", None),
    }

# names of other projects, and ours that only signatures show
_OTHERS = (
    "torch|nn|np|numpy|npt|gymnasium|stable_baselines3|sb3_contrib|collections|typing|pathlib|os|sys|threading|types"
)
_INNER = "runs.keys|runs.schema.[A-Za-z]+Config|agents.sb3_views|agents.sequences|agents.ppo.Self"
_INNER += "|certify.enclosure|envs.phases"
nitpick_ignore_regex = [
    ("py:.*", rf"({_OTHERS})(\..*)?|Tensor|ResetNeeded"),
    ("py:.*", rf"bistable_rl\.({_INNER})(\..*)?"),
]

html_theme = "furo"
html_title = f"bistable-rl {version}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_theme_options = {"source_repository": repository, "footer_icons": []}
pygments_style, pygments_dark_style = "friendly", "monokai"
