"""Builds the part of the state that is written in C, where there is a compiler for it.

Without one, the same in Python is used: wallaroo/state/live.py says when.
"""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "wallaroo.state._native",
            ["worker/wallaroo/state/_native.c"],
            depends=["worker/wallaroo/state/_merge.h", "worker/wallaroo/state/_xxh3.h"],
            extra_compile_args=["-O2", "-Wall", "-Wextra"],
            optional=True,
        )
    ]
)
