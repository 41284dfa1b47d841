"""Builds the C extension from every src/tailrace/_engine*.c; the rest is in pyproject.toml."""

from pathlib import Path

from setuptools import Extension, setup

ROOT = Path(__file__).parent
PACKAGE = Path("src/tailrace")


def find(pattern: str) -> list[str]:
    """The files of the package that match, relative to this folder, in a fixed order."""
    return sorted(str(p.relative_to(ROOT)) for p in (ROOT / PACKAGE).glob(pattern))


setup(
    ext_modules=[
        Extension(
            "tailrace._engine",
            sources=find("_engine*.c"),
            depends=find("_engine*.h"),
            extra_compile_args=["-std=c17", "-O2", "-fvisibility=hidden"],
            extra_link_args=["-pthread"],
            optional=True,  # without a compiler: totals only, said at start
        )
    ]
)
