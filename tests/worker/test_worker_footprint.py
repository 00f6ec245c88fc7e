"""What a worker process does not carry: programs it never runs. Each was 7 to 60 MB of every worker."""

from __future__ import annotations

import subprocess
import sys


def loaded_after(code: str) -> set[str]:
    """The top-level packages that a fresh interpreter holds after it."""
    told = f"{code}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    ended = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True, timeout=60)
    return set(ended.stdout.split())


def test_worker_loads_neither_the_migrations_nor_the_model_sdk_when_it_is_imported() -> None:
    loaded = loaded_after("import worker.main")

    assert "celery" in loaded
    assert loaded.isdisjoint({"alembic", "mako", "anthropic", "genai_prices", "mcp", "mcp_types"})


def test_worker_with_all_its_tools_loads_no_mcp_sdk_before_it_calls_an_mcp_tool() -> None:
    loaded = loaded_after(
        "from app.bootstrap import build_services\nfrom app.settings import Settings\n"
        "build_services(Settings(database_url='postgresql://x', redis_url='redis://x'), worker_name='w.1')"
    )

    assert "structlog" in loaded
    assert loaded.isdisjoint({"mcp", "mcp_types", "jsonschema", "starlette"})


def test_model_port_loads_no_sdk_when_it_is_warmed_without_a_key() -> None:
    loaded = loaded_after(
        "import asyncio\nfrom app.ports.model import ClaudeModel\n"
        "asyncio.run(ClaudeModel(base_url=None, api_key=None).warm())"
    )

    assert loaded.isdisjoint({"anthropic", "genai_prices"})


def test_model_port_loads_the_sdk_when_it_is_warmed_with_a_key() -> None:
    loaded = loaded_after(
        "import asyncio\nfrom app.ports.model import ClaudeModel\n"
        "asyncio.run(ClaudeModel(base_url=None, api_key='sk-x').warm())"
    )

    assert {"anthropic", "genai_prices"} <= loaded
