"""Definitions: the document a client writes, from text to a plan that can run.

Reading order: `source` (text → tree and lines) → `checking` (every fault of the tree in one pass, and the plan body)
→ `compiling` (plan body → `app/domain/plan.py::Plan`). `vocabulary` holds the words, `findings` collects what is
wrong, the other files check one part each: `limits`, `steps`, `kinds`, `arguments`, `agents`, `retrying`, `graph`,
`seen`; of tools `tools`, `probes`, `compensations`, `answering`, `consent`, and `linking` what one says of another.

Promises: nothing here raises for what a client wrote, reads a clock, opens a connection, or stops at the first fault.
"""
