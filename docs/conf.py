"""Configuration of Sphinx."""

from __future__ import annotations

import balloon_plugin

project = "balloon-plugin"
author = "the balloon_plugin developers"
project_copyright = f"2026, {author}"
release = balloon_plugin.__version__
version = release

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.doctest"]
exclude_patterns = ["_build", "examples"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"{project} {release}"

# Everything that is mentioned has to be found, without asking the network.
nitpicky = True
nitpick_ignore_regex = [
    (
        "py:.*",
        r"(collections\.abc|concurrent\.futures|enum|pathlib|pluggy|struct|typing)\..*",
    ),
    ("py:class", "Collector"),  # prometheus_client's, which has no inventory
]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
