"""What the server does to a value on its way into a prompt is what Semantic Kernel's own code does to it."""

from __future__ import annotations

import html

from hypothesis import assume, example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from semantic_kernel.contents import ChatHistory

from semantic_parrot.adapters.marks import Marks, Ref
from semantic_parrot.adapters.semantic_kernel import ParrotChatCompletion
from semantic_parrot.adapters.semantic_kernel.messages import escaped, messages_of
from semantic_parrot.core.errors import NoMatch
from semantic_parrot.core.operations import Transform
from semantic_parrot.core.transforms import apply

TRANSFORM = TypeAdapter(Transform)
SERVICE = ParrotChatCompletion()

#: Prompts around one value. A text right before or after it could complete a reference that the value begins: there
#: the request differs, and nothing is claimed.
PROMPTS = (
    "{}", "Say {}", "{} now", "a\n {} \nb", "<message role='system'>{}</message>", "1 < 2: {}", "AT&T {} x",
    "<message role='user'> {} </message> {}",
    "x <message role='assistant'>y {}</message> {} z", "<chat_history><message role='user'>{}</message></chat_history>",
)  # fmt: skip
PIECES = ["a", "ü", " ", "\n", "\r\n", "\r", "\t", *"&<>\"';", "&amp;", "&lt;", "&#65;", "&copy", "<b>"]
PIECE = st.sampled_from(PIECES) | st.characters(exclude_categories=["Cs"])
VALUES = st.lists(PIECE, min_size=1, max_size=8).map("".join)


def at_server(ref: Ref, value: str) -> str:
    """The value of `ref`, by the server's transforms."""
    for operation in ref.operations:
        found = TRANSFORM.validate_python({"id": "t", "of": "x", "output": "y", **dict(operation)})
        value = apply(found, {"x": value})
    return value


@given(st.sampled_from(PROMPTS), VALUES, st.integers(0, 3))
@example("1 < 2: {}", "\x0b", 1)
@example("{}", "a\r\nb\r", 1)
@example("Say {}", "&nbsp;x&nbsp;", 2)
def test_the_servers_transforms_make_semantic_kernels_messages(prompt, value, escapes):
    assume(value.strip())
    marks = Marks("nonce")
    ref: Ref = Ref("v")
    text = value
    for _ in range(escapes):
        ref, text = escaped(ref), html.escape(text)
    expected = SERVICE._prepare_chat_history_for_request(ChatHistory.from_rendered_prompt(prompt.replace("{}", text)))
    planned = messages_of(SERVICE, prompt.replace("{}", marks.write([ref])), marks)
    try:
        made = [
            {
                **m,
                "content": "".join(p if isinstance(p, str) else at_server(p, value) for p in marks.read(m["content"])),
            }
            for m in planned
        ]
    except NoMatch:
        # Markup that is not escaped, or what no XML may contain: there Semantic Kernel makes one message of it all.
        raw = escapes == 0 and any(c in value for c in "<&")
        as_text = expected == [{"role": "user", "content": html.unescape(prompt.replace("{}", text).strip())}]
        assert raw or as_text or "]]>" in value
        return
    if escapes or not any(c in value for c in "<&"):
        assert made == expected


async def test_a_template_is_rendered_as_planned_for_known_values():
    """Nothing symbolic in it: the lowering's prompt is the template's own."""
    from semantic_kernel import Kernel
    from semantic_kernel.functions import KernelArguments, KernelFunctionFromPrompt

    from semantic_parrot.adapters.plan import Plan
    from semantic_parrot.adapters.semantic_kernel.frames import Planned
    from semantic_parrot.adapters.semantic_kernel.planner import PLANNER

    service = ParrotChatCompletion()
    kernel = Kernel()
    kernel.add_service(service)  # and no plugin before Handlebars' turn: that would change asyncio
    templates = {
        "semantic-kernel": "{{$a}} {{$n}} {{$none}}{{'v'}} <b>{{$a}}</b>",
        "jinja2": "{{ a }} x\n",
        "handlebars": "{{a}} {{{a}}} {{~ a ~}} x",
    }
    for format, text in templates.items():
        function = KernelFunctionFromPrompt(function_name="f", prompt=text, template_format=format)
        arguments = KernelArguments(a="x & <y> `", n=3)
        plan = Plan()
        PLANNER.lowering(plan).run(kernel, function, arguments, Planned())
        rendered = await function.prompt_template.render(kernel, KernelArguments(a="x & <y> `", n=3))
        expected = service._prepare_chat_history_for_request(ChatHistory.from_rendered_prompt(rendered))
        assert plan.calls[0].request["messages"] == expected
