"""README as the package's page on an index shows it: pictures and links there can't point to files beside it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

#: A relative target of a Markdown link or picture, or of an `src`; no address and no place in the page.
TARGET = re.compile(r"""(?P<before>\]\(|src=")(?![a-z]+:|#)(?P<path>[^)"\s]+)""")
PICTURES = (".png", ".svg", ".gif", ".jpg")


def absolute(readme: str, repository: str, tag: str) -> str:
    """`readme` with relative targets as addresses in the repository at this tag."""

    def address(match: re.Match[str]) -> str:
        kind = "raw" if match["path"].partition("#")[0].endswith(PICTURES) else "blob"
        return f"{match['before']}{repository}/{kind}/{tag}/{match['path']}"

    return TARGET.sub(address, readme)


class CustomMetadataHook(MetadataHookInterface):
    def update(self, metadata: dict[str, Any]) -> None:
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        version = re.search(r'__version__ = "(.+?)"', (Path(self.root) / "rnnlstm/config/__init__.py").read_text())
        assert version is not None
        text = absolute(text, metadata["urls"]["Repository"], f"v{version[1]}")
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
