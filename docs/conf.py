"""Settings of the documentation site: `make docs` builds it offline from the guides and the docstrings."""

from __future__ import annotations

import vmkla

project = "vmkla"
release = version = vmkla.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
root_doc = "index"
exclude_patterns = ["schemas", "deploy"]
html_theme = "furo"
html_title = f"vmkla {release}"
html_static_path: list[str] = []

# Headings become targets of links.
myst_heading_anchors = 4
# Links to files outside this folder (benchmarks, examples) are for readers of the repository, and
# tests/test_docs.py checks that the files exist. This setting also hides links to headings that do not exist.
suppress_warnings = ["myst.xref_missing"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_use_rtype = False
napoleon_custom_sections = [("Source", "notes_style")]
