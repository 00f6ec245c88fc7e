"""The history of the schema. Migrations outlive code: they import nothing of `app`, only what lies in this package.

`app/store/migrating.py` runs them, `make migration name=…` writes the next one, `tests/migrations` holds them to
`app/store/tables.py`. Expand first, contract in a later release: the release before must be able to work on the
schema after.
"""
