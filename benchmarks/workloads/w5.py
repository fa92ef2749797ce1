"""W5, multi-agent coding, after MetaGPT: an architect, then for each file a coder, its reviewers and a revision, in
several rounds; everybody reads the task and the design."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnablePassthrough

from workloads.job import Call, Job, scaled
from workloads.texts import Texts

TASK, ROLE, ANSWER, FILES, ROUNDS, REVIEWERS = 2600, 400, 500, 16, 3, 3
READS = "{role}{task}\nDesign:{design}\n"


def app(llm: BaseChatModel, files: int, tokens: int) -> Runnable[Any, Any]:
    """{"task": text, "architect": text, "coder": text, "reviewer": text} → each file's code."""
    model = llm.bind(max_tokens=tokens)

    def agent(prompt: str) -> Runnable[Any, str]:
        return ChatPromptTemplate.from_template(prompt) | model | StrOutputParser()

    def all_files(**prompts: str) -> Runnable[Any, Any]:
        """One agent for each of `prompts`, all at the same time."""
        return RunnablePassthrough.assign(**{name: agent(prompt) for name, prompt in prompts.items()})

    coder, reviewer = (READS.replace("{role}", f"{{{role}}}") for role in ("coder", "reviewer"))
    each = range(files)
    chain = RunnablePassthrough.assign(design=agent("{architect}{task}"))
    chain = chain | all_files(**{f"code_{i}": f"{coder}File {i}." for i in each})
    for _ in range(ROUNDS):
        reviews = {
            f"review_{i}_{k}": f"{reviewer}File {i}:{{code_{i}}}\nReviewer {k}." for i in each for k in range(REVIEWERS)
        }
        chain = chain | all_files(**reviews)
        said = ["".join(f"{{review_{i}_{k}}}" for k in range(REVIEWERS)) for i in each]
        chain = chain | all_files(**{f"code_{i}": f"{coder}File {i}:{{code_{i}}}\nReviews:{said[i]}" for i in each})
    return chain | {f"file_{i}": itemgetter(f"code_{i}") for i in each}


def jobs(llm: BaseChatModel, texts: Texts, scale: float, seed: str) -> list[Job]:
    files, tokens = scaled(FILES, scale, 2), scaled(ANSWER, scale, 12)
    role = scaled(ROLE, scale, 8)
    sizes = {"task": scaled(TASK, scale, 32), "architect": role, "coder": role, "reviewer": role}
    given = {name: texts.text(size, seed, name) for name, size in sizes.items()}
    return [Job(0.0, "agents", app(llm, files, tokens), given, tuple(_calls(texts, sizes, files, tokens)))]


def _calls(texts: Texts, sizes: dict[str, int], files: int, tokens: int) -> list[Call]:
    calls = [Call(sizes["architect"] + sizes["task"], tokens)]
    # The design is read, and common; so is how a file, and who reviews it, is named.
    design, name, reviewer = texts.count("\nDesign:\n") + tokens, texts.count("File "), texts.count("\nReviewer ")

    def add(role: str, own: str, answers: tuple[int, ...], *begins: tuple[str, int]) -> int:
        common = (role, sizes[role] + sizes["task"] + design + name)
        size = texts.count(own) - name + tokens * len(answers) - sum(n for _, n in begins)
        calls.append(Call(size, tokens, (0, *answers), (common, *begins)))
        return len(calls) - 1

    each = range(files)
    code = [add("coder", f"File {i}.", ()) for i in each]
    for turn in range(ROUNDS):
        seen = [(f"file {turn}.{i}", texts.count(f"File {i}:") - name + tokens + reviewer) for i in each]
        reviews = [
            [add("reviewer", f"File {i}:\nReviewer {k}.", (code[i],), seen[i]) for k in range(REVIEWERS)] for i in each
        ]
        code = [add("coder", f"File {i}:\nReviews:", (code[i], *reviews[i])) for i in each]
    return calls
