"""What can be said of the OpenVINO engine without OpenVINO; tests/peers runs it."""

import pytest

from semantic_parrot.core.config import ConfigError, OpenVinoSection
from semantic_parrot.core.engine.messages import Options
from semantic_parrot.core.engine.openvino_loader import load
from semantic_parrot.core.engines.openvino import OpenVinoEngine
from semantic_parrot.core.engines.protocol import ModelLoadError, Outlined, Telling
from semantic_parrot.core.errors import Unsupported
from semantic_parrot.core.grammar import Grammar
from semantic_parrot.core.request import ModelRequest
from semantic_parrot.core.sampling import Sampling
from semantic_parrot.core.tools import Tool, Tools
from semantic_parrot.server import engines
from semantic_parrot.server.options import ServeOptions


def request(grammar=None, tools=None, **sampling):
    return ModelRequest("m", None, "a", Sampling(**sampling), grammar, tools)


@pytest.mark.parametrize(
    ("refused", "where"),
    [
        (request(logit_bias=((1, 2.0),)), "logit_bias"),
        (request(logprobs=0), "logprobs"),
        (request(presence_penalty=1.0), "presence_penalty"),
        (request(frequency_penalty=-1.0), "frequency_penalty"),
        (request(Grammar("regex", "[ab]", "structured_outputs.regex")), "structured_outputs.regex"),
        (request(tools=Tools((Tool("f", "{}", "{}"),), True, ("f",), False)), "tool_choice"),
    ],
)
def test_what_it_does_not_obey_is_refused_by_name(refused, where):
    engine = OpenVinoEngine("exported", names=("m",))
    with pytest.raises(Unsupported) as caught:
        engine.check(refused)
    assert caught.value.where == where


def test_what_it_obeys_is_not():
    plain = request(
        temperature=0.5, top_p=0.9, top_k=3, min_p=0.1, repetition_penalty=1.2, stop=("x",), min_tokens=2, n=2
    )
    OpenVinoEngine("exported", names=("m",)).check(plain)


def test_it_is_none_of_those_that_tell_what_they_keep():
    engine = OpenVinoEngine("exported", names=("m",))
    assert not isinstance(engine, Outlined | Telling)


def test_a_directory_that_was_not_exported_is_refused(tmp_path):
    with pytest.raises(ModelLoadError, match="optimum-cli export openvino --model"):
        load(Options(str(tmp_path), runtime="openvino"))


def test_without_openvino_the_server_says_what_to_install(monkeypatch):
    monkeypatch.setattr(engines, "find_spec", lambda _: None)
    options = ServeOptions(elsewhere={"own": OpenVinoSection(kind="openvino", model="exported")})
    with pytest.raises(ConfigError, match=r"engines\.own: OpenVINO is not installed: pip install"):
        engines.all_engines(options)
