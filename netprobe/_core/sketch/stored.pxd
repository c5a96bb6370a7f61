"""What the Python classes of sketches share: how they are pickled, and how they trade with datasketches."""

cdef class Stored:
    """Has `serialize`, and `deserialize` that takes the same bytes back."""


cdef class Exchanged(Stored):
    """Its bytes are those of the class `_foreign` of the datasketches package."""
