"""Multi-agent programming, as in Parrot's paper (§8.4, after MetaGPT): an architect designs, coders write a file each,
reviewers comment on each file with all of them before their eyes, coders revise; and that several times.

    python examples/langchain/coding_team.py    # against `parrot serve` (make serve)

All of it is one program, and the prompts of a round share their long beginning. The demo model can't program: what it
writes is nonsense, though always the same. Serve a code model for the real thing.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnablePassthrough

DESIGN = "Task: {task}\nName what each of these files is to do: "
ALL_FILES = "Task: {task}\nDesign: {design}\nThe files so far:\n"


def team(llm: BaseChatModel, files: list[str], rounds: int = 2) -> Runnable[Any, dict[str, str]]:
    """{"task": text} -> each file's code, after `rounds` of reviews."""

    def agent(role: str, prompt: str) -> Runnable[Any, str]:
        messages = [("system", f"You are the {role} of a team that writes Python."), ("human", prompt)]
        return ChatPromptTemplate.from_messages(messages) | llm | StrOutputParser()

    names = [f"code_{i}" for i in range(len(files))]
    so_far = ALL_FILES + "".join(f"### {file}\n{{{name}}}\n" for file, name in zip(files, names, strict=True))

    def each(role: str, ask: str, result: str) -> Runnable[Any, Any]:
        """One agent of `role` for each file, at the same time."""
        return RunnablePassthrough.assign(
            **{result.format(i=i): agent(role, ask.format(file=file, i=i)) for i, file in enumerate(files)}
        )

    write = "Task: {{task}}\nDesign: {{design}}\nWrite {file}."
    chain: Runnable[Any, Any] = RunnablePassthrough.assign(design=agent("architect", DESIGN + ", ".join(files)))
    chain = chain | each("coder", write, "code_{i}")
    every = so_far.replace("{", "{{").replace("}", "}}")
    for _ in range(rounds):
        chain = chain | each("reviewer", every + "What is wrong with {file}?", "review_{i}")
        chain = chain | each("coder", every + "Review of {file}: {{review_{i}}}\nWrite {file} anew.", "code_{i}")
    return chain | {file: itemgetter(name) for file, name in zip(files, names, strict=True)}


def main() -> None:
    from semantic_parrot.adapters.langchain import ChatParrot

    llm = ChatParrot(temperature=0, max_tokens=24)
    chain = team(llm, ["board.py", "rules.py", "main.py"])
    for file, code in chain.invoke({"task": "a game of draughts for two"}).items():
        print(f"### {file}\n{code}")


if __name__ == "__main__":
    main()
