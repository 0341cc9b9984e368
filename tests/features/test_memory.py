"""Memory of a shard: blocks come in classes of size."""

from tidegate.features.memory import class_of, class_size


def test_a_size_class_is_the_smallest_that_has_room() -> None:
    """However the class is computed, a search through all classes finds the same."""
    sizes = [class_size(c) for c in range(80)]
    for words in [*range(5_000), *(s + d for s in sizes[:60] for d in (-1, 0, 1))]:
        assert class_of(words) == next(c for c, size in enumerate(sizes) if size >= words)
