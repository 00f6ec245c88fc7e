"""Writes the next migration: what is missing between the head of the history and `app/store/tables.py`.

    python -m migrations.write NAME       the next revision              (make migration name=NAME)
    python -m migrations.write --first    the first one, written anew    (make migration-first)

It starts an embedded Postgres of its own, upgrades it to the head and lets Alembic compare. Read what it wrote:
Alembic does not see changed CHECK constraints of existing tables (`tests/migrations` does), nor a rename.
`--first` is for the time before the first release only: it replaces the history, which no database may know yet.
"""

from __future__ import annotations

import re
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import Script

from app.embedded.postgres import EmbeddedPostgres
from app.store import migrating, tables

ROOT = Path(__file__).parent.parent
ALEMBIC_COMMENT = re.compile(r"^ *# ###.*\n", re.MULTILINE)
FIRST = "2026_11_22_1100_first.py"
FIRST_REVISION = "202611221100"
USAGE = "Usage: python -m migrations.write NAME | --first"


def _config() -> Config:
    config = Config(toml_file=str(ROOT / "pyproject.toml"))
    config.attributes["metadata"] = tables.metadata
    return config


def _write(url: str, *, slug: str, revision: str) -> Path:
    config = _config()
    with migrating.connecting(url) as connection:
        config.attributes["connection"] = connection
        script = command.revision(config, message=slug, autogenerate=True, rev_id=revision)
    if not isinstance(script, Script):
        raise RuntimeError("Alembic wrote no revision, or more than one.")
    path = Path(script.path)
    path.write_text(ALEMBIC_COMMENT.sub("", path.read_text()))
    return path


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or not arguments[0]:
        print(USAGE, file=sys.stderr)
        return 1
    now = datetime.now(UTC)
    with tempfile.TemporaryDirectory(prefix="surefoot-migration-") as folder:
        server = EmbeddedPostgres(Path(folder))
        server.start()
        try:
            if arguments[0] == "--first":
                versions = migrating.scripts() / "versions"
                for old in versions.glob("2*.py"):
                    old.unlink()
                _write(server.url, slug="first", revision=FIRST_REVISION).rename(versions / FIRST)
            else:
                migrating.upgrade(server.url)
                _write(server.url, slug=arguments[0], revision=now.strftime("%Y%m%d%H%M"))
        finally:
            server.stop()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
