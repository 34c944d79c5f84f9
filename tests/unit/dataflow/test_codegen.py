"""Generated functions, as far as they can be told from outside."""

import linecache

from tests.unit.dataflow import pipelines as p
from tests.unit.dataflow.cluster import Reader, engine_of

from wallaroo.dataflow.codegen import generate
from wallaroo.dataflow.engine import Engine


def engine() -> Engine:
    application = p.application(p.source().to(p.add_one).key_by(p.by_rest).to(p.tally))
    return engine_of(application, readers={"numbers": Reader([1])})


def test_every_generated_function_has_a_file_of_its_own() -> None:
    """A failure finds its step by file and line: two functions must never share a file."""
    made = engine()
    stage = made.graph.stages[0]
    batches = [generate(made.graph, stage, None, made, frozenset()) for _ in range(50)]
    assert len({batch.file for batch in batches}) == 50


def test_the_line_of_a_step_calls_its_function() -> None:
    made = engine()
    batch = generate(made.graph, made.graph.stages[0], None, made, frozenset())
    (number,) = (number for number, line in batch.lines.items() if line.step is p.add_one)
    call = linecache.getline(batch.file, number).strip()
    name = call.partition("= ")[2].partition("(")[0]
    assert batch.run.__globals__[name] is p.add_one.function
