"""Pages of the repository as documents of the site: their addresses, the table of contents, links to other files."""

from __future__ import annotations

import os
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.project import Project
from sphinx.transforms import SphinxTransform
from sphinx.util._pathlib import _StrPath


class Pages(Project):
    """The documents that `PAGES` of conf.py names, each under its address there."""

    def discover(self, exclude_paths: object = (), include_paths: object = ()) -> set[str]:
        """Find the pages that exist."""
        from conf import PAGES

        pages = {name: Path(file) for part in PAGES.values() for name, file in part.items()}
        found = {name: file for name, file in pages.items() if (Path(self.srcdir) / file).is_file()}
        self.docnames = set(found)
        self._docname_to_path = found
        self._path_to_docname = {file: name for name, file in found.items()}
        return self.docnames

    def path2doc(self, filename: str | os.PathLike[str]) -> str | None:
        """Return the address of a page, None for any other file."""
        path = Path(self.srcdir, filename).resolve()
        return self._path_to_docname.get(Path(os.path.relpath(path, Path(self.srcdir).resolve())))

    def doc2path(self, docname: str, absolute: bool) -> _StrPath:
        """Return the file of a page."""
        path = self._docname_to_path.get(docname, Path(docname))
        return _StrPath(self.srcdir / path if absolute else path)


class LinkFilesOnGitHub(SphinxTransform):
    """Turn links to files and folders that are no pages into links to the repository on GitHub."""

    default_priority = 5

    def apply(self, **_: object) -> None:
        """Replace the links of one page."""
        root = Path(self.env.srcdir).resolve()
        for node in list(
            self.document.findall(lambda n: isinstance(n, addnodes.download_reference | addnodes.pending_xref))
        ):
            if node.get("reftype") != "myst" or node.get("refdomain"):
                continue
            target, _, anchor = node["reftarget"].partition("#")
            path = (root / self.env.doc2path(self.env.docname, base=False)).parent.joinpath(target).resolve()
            if not target or not path.exists() or not path.is_relative_to(root):
                continue
            kind = "tree" if path.is_dir() else "blob"
            uri = f"{self.config.repository}/{kind}/main/{path.relative_to(root).as_posix()}"
            link = nodes.reference("", "", refuri=uri + f"#{anchor}" * bool(anchor), internal=False)
            if (
                node.children
                and isinstance(node.children[0], nodes.literal)
                and "download" in node.children[0]["classes"]
            ):
                link += nodes.literal(target, target)
            else:
                link += node.children
            node.replace_self(link)


def add_contents(app: Sphinx, docname: str, source: list[str]) -> None:
    """Add the table of contents to the front page."""
    if docname != app.config.root_doc:
        return
    from conf import PAGES

    for caption, pages in PAGES.items():
        found = [f"/{name}" for name in pages if name in app.env.found_docs and name != docname]
        if found:
            lines = ["", "```{toctree}", ":hidden:", f":caption: {caption}", "", *found, "```", ""]
            source[0] += "\n".join(lines)


def use_pages(app: Sphinx) -> None:
    """Let the project find the pages."""
    app.project.__class__ = Pages


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_config_value("repository", "", "env", types=[str])
    app.connect("builder-inited", use_pages)
    app.connect("source-read", add_contents)
    app.add_transform(LinkFilesOnGitHub)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
