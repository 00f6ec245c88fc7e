"""The history of the schema: upgrading from nothing gives exactly what `app/store/tables.py` says, both ways, safely.

"Exactly" is asked of Postgres's own catalogue and not of Alembic, which does not compare CHECK constraints.
"""

from __future__ import annotations

import threading
from pathlib import Path

import psycopg
import pytest
from alembic.script import ScriptDirectory
from psycopg import Connection
from sqlalchemy import create_engine, make_url

from app.store import migrating, tables
from app.store.database import Database

CATALOGUE = {
    "columns": """
        SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
               pg_get_expr(d.adbin, d.adrelid), a.attidentity, a.attgenerated
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped""",
    "constraints": """
        SELECT conrelid::regclass::text, conname, contype, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace""",
    "indexes": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "sequences, views, functions, triggers": """
        SELECT relkind::text, relname::text FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('S', 'v', 'm')
        UNION ALL SELECT 'function', proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        UNION ALL SELECT 'trigger', tgname FROM pg_trigger WHERE NOT tgisinternal""",
}


def _catalogue(url: str, *, what: str) -> set[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return {row for row in connection.execute(CATALOGUE[what]).fetchall() if "alembic_version" not in row}


def _create_from_metadata(url: str) -> None:
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    tables.metadata.create_all(engine)
    engine.dispose()


@pytest.mark.parametrize("what", CATALOGUE)
def test_upgrade_from_empty_builds_what_the_tables_say(what: str, database_url: str, empty_database_url: str) -> None:
    _create_from_metadata(empty_database_url)

    migrated, declared = _catalogue(database_url, what=what), _catalogue(empty_database_url, what=what)

    assert migrated == declared, (
        f"The migrations and app/store/tables.py differ in {what}.\n"
        f"  only migrated: {sorted(map(str, migrated - declared))}\n"
        f"  only declared: {sorted(map(str, declared - migrated))}\n"
        "Write what is missing: make migration name=… (or make migration-first while nothing is released)."
    )


def test_downgrade_leaves_nothing_and_upgrade_brings_everything_back(database_url: str) -> None:
    before = {what: _catalogue(database_url, what=what) for what in CATALOGUE}

    migrating.downgrade(database_url, "base")

    assert {what: _catalogue(database_url, what=what) for what in CATALOGUE} == {what: set() for what in CATALOGUE}
    migrating.upgrade(database_url)
    assert {what: _catalogue(database_url, what=what) for what in CATALOGUE} == before


def test_history_has_one_head() -> None:
    history = ScriptDirectory(str(migrating.scripts()))

    assert len(history.get_heads()) == 1, "Two branches of history: give one `down_revision` the other's revision."
    assert history.get_current_head() == migrating.head()


def test_history_is_dated_in_order_of_revision() -> None:
    walked = list(ScriptDirectory(str(migrating.scripts())).walk_revisions())

    names = [Path(script.path).name for script in reversed(walked)]

    assert names == sorted(names), "A listing of migrations/versions must be the history; rename by the minute written."


def test_migrations_import_nothing_of_the_application() -> None:
    for path in migrating.scripts().glob("versions/*.py"):
        text = path.read_text()

        assert "from app" not in text, f"{path.name}: code changes, a migration must not; copy what it needs."
        assert "import app" not in text, f"{path.name}: code changes, a migration must not; copy what it needs."


def test_two_processes_upgrade_safely_when_started_at_once(empty_database_url: str) -> None:
    reached: list[str] = []
    start = threading.Barrier(4)

    def upgrade() -> None:
        start.wait()
        reached.append(migrating.upgrade(empty_database_url))

    threads = [threading.Thread(target=upgrade) for _ in range(start.parties)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert reached == [migrating.head()] * start.parties


def test_upgrade_touches_nothing_while_another_process_holds_the_lock(empty_database_url: str) -> None:
    with migrating.connecting(empty_database_url) as other, migrating.alone(other):
        with pytest.raises(migrating.SchemaBusy, match="Another process"):
            migrating.upgrade(empty_database_url, patience=0)

        assert migrating.current(empty_database_url) is None

    assert migrating.upgrade(empty_database_url) == migrating.head()


def test_upgrade_refuses_a_database_of_a_newer_release(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        _set_revision(connection, "209912312359")

    with pytest.raises(migrating.SchemaNewer, match="209912312359"):
        migrating.upgrade(database_url)

    assert migrating.current(database_url) == "209912312359"


async def test_readiness_reads_the_revision_over_an_open_connection(database_url: str, empty_database_url: str) -> None:
    found: list[str | None] = []

    for url in (database_url, empty_database_url):
        database = Database(url)
        async with database.reading() as connection:
            found.append(await migrating.read_current(connection))
        await database.close()

    assert found == [migrating.head(), None]


def _set_revision(connection: Connection[tuple[object, ...]], revision: str) -> None:
    connection.execute("UPDATE alembic_version SET version_num = %s", [revision])
