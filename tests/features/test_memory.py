"""Memory of a shard: blocks come in classes of size; and the compiled code's cache on the disk."""

import ast
from pathlib import Path

from tidegate.features import memory
from tidegate.features.memory import class_of, class_size


def test_a_size_class_is_the_smallest_that_has_room() -> None:
    """However the class is computed, a search through all classes finds the same."""
    sizes = [class_size(c) for c in range(80)]
    for words in [*range(5_000), *(s + d for s in sizes[:60] for d in (-1, 0, 1))]:
        assert class_of(words) == next(c for c, size in enumerate(sizes) if size >= words)


def test_the_cache_of_compiled_code_looks_at_every_module_that_has_some() -> None:
    """What is not listed could change without being compiled again."""
    listed = {(Path(memory.__file__).parent / f"{m}.py").resolve() for m in memory._COMPILED}
    compiled = {p.resolve() for p in Path(memory.__file__).parent.glob("*.py") if _compiles(p)}
    assert compiled <= listed
    assert all(p.exists() for p in listed)


def _compiles(path: Path) -> bool:
    """Whether a function of the module is decorated for compilation."""
    functions = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef)]
    names = {ast.unparse(d).partition("(")[0] for f in functions for d in f.decorator_list}
    return bool(names & {"inline", "unfolded", "kernel"})
