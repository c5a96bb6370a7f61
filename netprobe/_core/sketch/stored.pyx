"""What the Python classes of sketches share: how they are pickled, and how they trade with datasketches."""


cdef class Stored:
    """Has `serialize`, and `deserialize` that takes the same bytes back."""

    def __reduce__(self):
        return type(self).deserialize, (self.serialize(),)


cdef class Exchanged(Stored):
    """Its bytes are those of the class `_foreign` of the datasketches package."""

    @classmethod
    def from_datasketches(cls, sketch):
        """Take over a sketch of the datasketches package; ValueError if it is one of another kind."""
        write = getattr(sketch, "serialize_compact", None) or sketch.serialize
        return cls.deserialize(write())

    def to_datasketches(self):
        """The same as a sketch of the datasketches package."""
        import datasketches
        return getattr(datasketches, self._foreign).deserialize(self.serialize())
