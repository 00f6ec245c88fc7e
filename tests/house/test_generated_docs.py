"""The generated pages of docs/ say what the code says."""

from __future__ import annotations

import pytest

from docs import generate


@pytest.mark.parametrize("name", generate.PAGES)
def test_generated_page_says_what_the_code_says(name: str) -> None:
    written = (generate.FOLDER / name).read_text(encoding="utf-8")

    assert written == generate.PAGES[name](), f"docs/{name} is behind the code. Run: make docs"
