"""App shapes beyond the promised ones, which must stay correct; their round trips are as they are."""

from __future__ import annotations

from operator import itemgetter

from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import (
    CommaSeparatedListOutputParser,
    JsonOutputParser,
    NumberedListOutputParser,
)
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder, PromptTemplate
from langchain_core.runnables import (
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
    RunnableSequence,
)
from lc_shapes import P, S, Shape, retrieve, shout, step

CORRECT = (
    Shape("retry", lambda m: step("A {x}", m).with_retry() | step("B {y}", m) | step("C {y}", m), {"x": "1"}, (3, 1)),
    Shape(
        "fallbacks",
        lambda m: step("A {x}", m).with_fallbacks([step("F {x}", m)]) | P("B {y}") | m.with_retry() | S(),
        {"x": "1"},
        (2, 1),
    ),
    Shape(
        "mustache",
        lambda m: (
            step("[html] {x}", m)
            | ChatPromptTemplate.from_template("B <{{y}}> {{!no}}", template_format="mustache")
            | m
        ),
        {"x": "1"},
        (2, 1),
    ),
    Shape(
        "json-assign",
        lambda m: (
            P("[json a b] {x}")
            | m
            | JsonOutputParser()
            | RunnablePassthrough.assign(c=step("C {a}", m))
            | step("D {b} {c}", m)
        ),
        {"x": "1"},
        (3, 1),
        streamed=(3, 2),
    ),
    Shape(
        "json-assign-pick",
        lambda m: (
            P("[json a b] {x}")
            | m
            | JsonOutputParser()
            | RunnablePassthrough.assign(c=step("C {a}", m)).pick(["c"])
            | step("D {c}", m)
        ),
        {"x": "1"},
        (3, 1),
    ),
    Shape(
        "json-pick",
        lambda m: P("[json a b] {x}") | m | JsonOutputParser().pick("a") | step("D {c}", m),
        {"x": "1"},
        (2, 1),
        streamed=(2, 2),
    ),
    Shape(
        "json-in-map",
        lambda m: (
            RunnableLambda(itemgetter("xs"))
            | (P("[jsons a] {x}") | m | JsonOutputParser()).map()
            | (lambda js: {"y": js[0][0]["a"], "z": js[1]})
            | step("D {y} {z}", m)
        ),
        {"xs": [{"x": "1"}, {"x": "2"}]},
        (3, 1),
    ),
    Shape(  # JSON that LangChain repairs: of the program that is lost, what went well is not executed again
        "json-repaired",
        lambda m: (
            P("[cut a] {x}")
            | m
            | JsonOutputParser()
            | step("N {a}", m)
            | {"a": (lambda d: "c") | step("A {y}", m) | step("A2 {y}", m), "b": step("B {y}", m)}
            | step("J {a} {b}", m)
        ),
        {"x": "1"},
        (6, 3),
    ),
    Shape(
        "mustache-list",
        lambda m: (
            P("[list] {x}")
            | m
            | CommaSeparatedListOutputParser()
            | ChatPromptTemplate.from_template("B <{{y}}>", template_format="mustache")
            | m
        ),
        {"x": "1"},
        (2, 2),
    ),
    Shape("single", lambda m: step("A {x}", m), {"x": "1"}, (1, 1)),
    Shape(
        "wiring",
        lambda m: (
            {"s": step("sum {doc}", m), "q": itemgetter("q")}
            | RunnablePassthrough.assign(a=step("ans {q} from {s}", m))
            | step("crit {q} {a}", m)
        ),
        {"doc": "dd", "q": "?"},
        (3, 1),
    ),
    Shape(
        "pick",
        lambda m: RunnablePassthrough.assign(s=step("S {x}", m)).pick("s") | step("T {y}", m),
        {"x": "1"},
        (2, 1),
    ),
    Shape(
        "nested",
        lambda m: RunnableSequence(
            RunnableSequence(
                step("A {x}", m).with_config(run_name="inner", tags=["t1"]), P("B {y}"), m, S()
            ).with_config(metadata={"k": 1}),
            step("C {y}", m),
        ),
        {"x": "1"},
        (3, 1),
    ),
    Shape("twins", lambda m: {"a": step("A {x}", m), "b": step("A {x}", m)} | step("J {a} {b}", m), {"x": "1"}, (3, 1)),
    Shape(
        "messages",
        lambda m: (
            ChatPromptTemplate.from_messages(
                [("system", "in {lang}"), MessagesPlaceholder("h"), ("human", "{q}")]
            ).partial(lang="en")
            | m
            | S()
            | step("T {y}", m)
        ),
        {"h": [HumanMessage("hi"), AIMessage("yo")], "q": "?"},
        (2, 1),
    ),
    Shape(
        "message-lambda",
        lambda m: P("A {x}") | m | (lambda message: {"y": f"<{message.content}>"}) | step("B {y}", m),
        {"x": "1"},
        (2, 1),
    ),
    Shape(
        "string-prompt",
        lambda m: PromptTemplate.from_template("A {x}") | m | S() | PromptTemplate.from_template("B {y}") | m,
        {"x": "1"},
        (2, 1),
    ),
    Shape(
        "format-spec",
        lambda m: step("A {x:>5}", m) | step("B {y:>50}", m) | step("C {y!r}", m),
        {"x": "1"},
        (3, 3),
    ),
    Shape(
        "jinja2",
        lambda m: step("A {x}", m) | ChatPromptTemplate.from_template("B {{ y }}", template_format="jinja2") | m,
        {"x": "1"},
        (2, 2),
    ),
    Shape(
        "mustache-verbatim",
        lambda m: (
            step("[html] {x}", m)
            | (lambda y: {"y": "<" + y + ">", "z": "<z>"})
            | ChatPromptTemplate.from_template("B {{{y}}} {{z}}", template_format="mustache")
            | m
        ),
        {"x": "1"},
        (2, 1),
    ),
    Shape("json-one", lambda m: P("[json a b] {x}") | m | JsonOutputParser() | step("{a}", m), {"x": "1"}, (2, 1)),
    Shape(
        "json-list", lambda m: P("[jsons a] {x}") | m | JsonOutputParser() | step("{a}", m), {"x": "1"}, (2, 1), (2, 2)
    ),
    Shape(
        "json-whole",
        lambda m: {"j": P("[json a b] {x}") | m | JsonOutputParser()} | step("use {j}", m),
        {"x": "1"},
        (2, 1),
    ),
    Shape(
        "json-item",
        lambda m: (
            P("[json a b] {x}")
            | m
            | JsonOutputParser()
            | {"a": itemgetter("a"), "b": lambda d: f"<{d['b']}>"}
            | step("{b} {a}", m)
        ),
        {"x": "1"},
        (2, 1),
    ),
    Shape(
        "json-map",
        lambda m: (
            P("[jsons a a] {x}")
            | m
            | JsonOutputParser()
            | (P("E {a}") | m).map()
            | (lambda ms: {"y": "; ".join(f"- {m.content}" for m in ms)})
            | step("R {y}", m)
        ),
        {"x": "1"},
        (4, 1),
        streams=False,
    ),
    Shape(
        "list",
        lambda m: {"l": P("[list] {x}") | m | CommaSeparatedListOutputParser()} | step("use {l}", m),
        {"x": "1"},
        (2, 1),
    ),
    Shape(
        "numbers",
        lambda m: (
            P("[numbers] {x}") | m | NumberedListOutputParser() | step("E {i}", m).map() | (lambda xs: xs[-1]) | m
        ),
        {"x": "1"},
        (5, 1),
    ),
    Shape(
        "opaque-map",
        lambda m: (
            P("[list] {x}")
            | m
            | CommaSeparatedListOutputParser()
            | (step("E {i}", m) | shout | step("E2 {y}", m)).map()
            | (lambda xs: {"y": "\n".join(xs)})
            | step("R {y}", m)
        ),
        {"x": "1"},
        (8, 3),
    ),
    Shape(
        "pulled",
        lambda m: (
            (RunnableLambda(retrieve) | step("A {y}", m)).with_retry()
            | step("B {y}", m).with_config(tags=["t"])
            | step("C {y}", m).with_config(tags=["t"])
        ),
        {"q": "z"},
        (3, 1),
    ),
    Shape(
        "returned-chain",
        lambda m: (lambda c: RunnableLambda(lambda d: c) | step("B {y}", m))(step("A {x}", m) | step("A2 {y}", m)),
        {"x": "1"},
        (3, 2),
    ),
    Shape(
        "partial-opaque",
        lambda m: (
            {"a": step("A {x}", m) | step("A2 {y}", m), "b": lambda d: retrieve({"q": d["x"]})} | step("J {a} {b}", m)
        ),
        {"x": "1"},
        (3, 2),
    ),
    Shape(
        "parallel-root",
        lambda m: RunnableParallel(a=step("A {x}", m), b=step("B {x}", m), c=step("C {x}", m) | step("D {y}", m)),
        {"x": "1"},
        (4, 1),
    ),
    Shape(  # the steps of the same model stand at the same place in both sequences: in a stream, the later one reads
        "same-place",
        lambda m: step("A {x}", m) | shout | step("B {y}", m).with_retry() | step("C {y}", m),
        {"x": "1"},
        (3, 2),
    ),
)
