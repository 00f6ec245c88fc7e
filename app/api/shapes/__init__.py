"""What goes over the wire: one pydantic model per noun, and the function that builds it from rows.

All keys are always present. Models are closed (`extra="forbid"`), so that a shape cannot grow by accident.
"""
