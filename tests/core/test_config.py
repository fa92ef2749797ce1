"""The configuration file: what is wrong with it is one line that names the place."""

import pytest

from semantic_parrot.core.config import (
    Config,
    ConfigError,
    OpenVinoSection,
    RaySection,
    RemoteSection,
    bounds,
    read_config,
)
from semantic_parrot.core.public import PublicPrefix
from semantic_parrot.core.request import UNKNOWN
from semantic_parrot.core.tenants import LimitsSection, TenantSection, Terms
from semantic_parrot.core.usage import Price
from semantic_parrot.server.options import ServeOptions, as_toml, merge, ray_of, remotes_of

WHOLE = """
[server]
host = "0.0.0.0"
port = 9000
data_dir = "kept"
drain_seconds = 5
[journal]
url = "postgresql://db/parrot"
keep_days = 1.5
keep_runs = 10
[engine]
model = "models/llama"
engines = 2
deterministic = true
kv_tokens = 4096
kv_offload_tokens = 0
prefix_cache = false
[scheduling]
disable = ["batch-cap", "preemption"]
enable = ["retention"]
tpot_ms = 40
[limits]
queued = 100
max_body_mib = 0.5
[tenant_defaults]
requests_per_minute = 60
[tenants.ann]
weight = 3
quota_cost = 0.5
quota_period = "day"
[[public_prefixes]]
prompt = "Once upon a time"
[[public_prefixes]]
messages = [
  { role = "system", content = "You are the harbour's clerk." },
]
[prices."llama"]
prompt = 0.5
completion = 1.5
[prices.default]
prompt = 1
cached = 0.25
completion = 2
[engines.big]
kind = "vllm"
url = "http://127.0.0.1:8000/v1"
names = ["big", "default"]
priority = true
[engines.cluster]
kind = "ray"
address = "10.0.0.1:6379"
replicas = "2..8"
num_gpus = 0.5
resources = { a100 = 1 }
[engines.own]
kind = "openvino"
model = "exported"
kv_tokens = 4096
"""


def read(tmp_path, text):
    file = tmp_path / "parrot.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_config(file)


def test_every_key_reaches_the_options(tmp_path):
    options = merge(read(tmp_path, WHOLE), {}, set(), set())
    assert options == ServeOptions(
        model="models/llama",
        host="0.0.0.0",
        port=9000,
        data_dir="kept",
        drain_seconds=5.0,
        journal="postgresql://db/parrot",
        keep_days=1.5,
        keep_runs=10,
        engines=2,
        deterministic=True,
        kv_tokens=4096,
        kv_offload_tokens=0,
        prefix_cache=False,
        disable=frozenset({"batch-cap", "preemption"}),
        enable=frozenset({"retention"}),
        tpot=0.04,
        prices={"llama": Price(0.5, 0.5, 1.5), "default": Price(1, 0.25, 2)},
        elsewhere={
            "big": RemoteSection(kind="vllm", url="http://127.0.0.1:8000/v1", names=["big", "default"], priority=True),
            "cluster": RaySection(
                kind="ray", address="10.0.0.1:6379", replicas="2..8", num_gpus=0.5, resources={"a100": 1}
            ),
            "own": OpenVinoSection(kind="openvino", model="exported", kv_tokens=4096),
        },
        terms=Terms(
            LimitsSection(queued=100, max_body_mib=0.5),
            TenantSection(requests_per_minute=60),
            {"ann": TenantSection(weight=3, quota_cost=0.5, quota_period="day")},
        ),
        public=(
            PublicPrefix(prompt="Once upon a time"),
            PublicPrefix(messages=[{"role": "system", "content": "You are the harbour's clerk."}]),
        ),
    )
    assert options.terms.limits.slow_seconds == 60
    ann, bob = options.terms.of("ann"), options.terms.of("bob")
    assert (ann.weight, ann.quota_cost, ann.quota_period, ann.requests_per_minute) == (3, 0.5, "day", 60)
    assert bob == TenantSection(requests_per_minute=60)
    assert (options.terms.weight, options.terms.weights) == (1, {"ann": 3})
    prompt, chat = (prefix.request() for prefix in options.public)
    assert prompt.prompt == f"Once upon a time{UNKNOWN}"
    assert [message.content for message in chat.messages] == ["You are the harbour's clerk.", UNKNOWN]


def test_flags_win_name_by_name(tmp_path):
    flags = {"port": 1, "deterministic": False, "engines": None, "tpot": 0.1}
    options = merge(read(tmp_path, WHOLE), flags, {"preemption"}, {"retention", "objectives"})
    assert (options.port, options.deterministic, options.engines, options.tpot) == (1, False, 2, 0.1)
    assert options.disable == {"batch-cap", "retention", "objectives"}
    assert options.enable == {"preemption"}


def test_nothing_said_is_the_default(tmp_path):
    assert merge(read(tmp_path, ""), {"port": None}, set(), set()) == ServeOptions()
    assert merge(Config(), {}, set(), set()) == ServeOptions()


#: Where the fault is, if not in the last line.
LINES = {
    "[sched]\nx = 1": 1,
    "[prices.m]\nprompt = 1": 1,
    "[prices.m]\nprompt = -1\ncompletion = 1": 2,
    "[prices.m]\nprompt = inf\ncompletion = 1": 2,
    '[prices."a.b"]\nout = 1\nprompt = 1\ncompletion = 1': 2,
    '# one\n[engine] # two\n\nmodel = """a\nb"""\nengines = 0\n[server]\nport = 1\n': 6,
    "[scheduling]\ndisable = [\n  1,\n]\ntpot_ms = 3": 4,
    "scheduling.tpot_ms = 0\nserver.port = 1": 1,
    '[[public_prefixes]]\nprompt = "a"\n[[public_prefixes]]\nmessages = 1\n[engine]': 4,
    '[[public_prefixes]]\nprompt = "a"\nmessages = []': 1,
    '[[public_prefixes]]\nmessages = [{ role = "clerk", content = "a" }]': 1,
    '[engines.a]\nkind = "vllm"': 1,
    '[engines.a]\nurl = "http://a"': 1,
    '[engines.a]\nkind = "vlm"\nurl = "http://a"': 2,
}


@pytest.mark.parametrize(
    "options",
    [
        ServeOptions(),
        ServeOptions(model='a "b"\\c\t\x7fé😀', port=0, kv_tokens=1, tpot=0.0125, kernels="torch", prefix_cache=False),
        ServeOptions(elsewhere={"a b": RaySection(kind="ray", replicas="1..3", resources={"x y": 0.5}, names=["m"])}),
        ServeOptions(elsewhere={"a.b": RemoteSection(kind="vllm", url="http://a/v1", key_env="KEY", context=9)}),
        ServeOptions(disable=frozenset({"retention", "batch-cap"}), prices={"a.b c": Price(1, 0.5, 2e-7)}),
        ServeOptions(
            terms=Terms(LimitsSection(queued=7), TenantSection(queued=3), {"a.b": TenantSection(tokens_per_minute=9)}),
            public=(
                PublicPrefix(prompt='a\n"b"\x7f'),
                PublicPrefix(
                    messages=[{"role": "system", "content": "c"}, {"role": "user", "content": "d", "name": "e"}]
                ),
            ),
        ),
    ],
)
def test_what_is_printed_says_the_same_when_it_is_read(tmp_path, options):
    printed = as_toml(options)
    assert merge(read(tmp_path, printed), {}, set(), set()) == options
    fields = {
        key for section in ("server", "engine", "scheduling") for key in type(getattr(Config(), section)).model_fields
    }
    assert all(f"\n{key} = " in printed or f"\n# {key}: " in printed for key in fields)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('# one\n[engine] # two\n\nmodel = """a\nb"""\nengines = 0\n[server]\nport = 1\n', "[engine] engines: Input"),
        ("[scheduling]\ndisable = [\n  1,\n]\ntpot_ms = 3", "[scheduling] disable.0: Input should be a valid string"),
        ("scheduling.tpot_ms = 0\nserver.port = 1", "[scheduling] tpot_ms: Input should be greater than 0"),
        ('[engine]\nkernels = "cuda"', "[engine] kernels: Input should be 'auto', 'torch', 'c' or 'triton'"),
        ("[server]\nprot = 1", "[server] has no key 'prot'; it may have: host, port"),
        ("[engine]\nmodels = 1", "[engine] has no key 'models'; it may have: model, engines, deterministic, kv_tokens"),
        ("[sched]\nx = 1", "no section or key 'sched'; there is: server, engine, scheduling, journal, prices"),
        ("port = 1", "no section or key 'port'"),
        ("server = 1", "[server]: Input should be a table"),
        ("engines = 1", "[engines]: Input should be a table"),
        ("[engines]\nx = 3", '[engines."x"]: Input should be a table'),
        ('[engines.x]\nkind = "ray"\nresources = 1', '[engines."x"] resources: Input should be a table'),
        ('[server]\nport = "x"', "[server] port: Input should be a valid integer"),
        ("[server]\nport = 70000", "[server] port: Input should be less than or equal to 65535"),
        ("[engine]\nengines = 0", "[engine] engines: Input should be greater than or equal to 1"),
        ("[scheduling]\ntpot_ms = 0", "[scheduling] tpot_ms: Input should be greater than 0"),
        ("[scheduling]\ndisable = [1]", "[scheduling] disable.0: Input should be a valid string"),
        ("[prices.m]\nprompt = 1", '[prices."m"] completion: Field required'),
        ("[prices.m]\nprompt = -1\ncompletion = 1", '[prices."m"] prompt: Input should be greater than or equal to 0'),
        ("[prices.m]\nprompt = inf\ncompletion = 1", '[prices."m"] prompt: Input should be a finite number'),
        (
            '[prices."a.b"]\nout = 1\nprompt = 1\ncompletion = 1',
            "[prices.\"a.b\"] has no key 'out'; it may have: prompt",
        ),
        ("[prices]\nm = 1", '[prices."m"]: Input should be a table'),
        ("[tenants.ann]\nweight = 0", '[tenants."ann"] weight: Input should be greater than 0'),
        ('[tenants.ann]\nquota_period = "week"', "[tenants.\"ann\"] quota_period: Input should be 'day' or 'month'"),
        ("[tenants.ann]\nrate = 1", "[tenants.\"ann\"] has no key 'rate'; it may have: weight, requests_per_minute"),
        ("[tenant_defaults]\nqueued = 0.5", "[tenant_defaults] queued: Input should be a valid integer"),
        ('[engines.a]\nurl = "http://a"\nkind = ["vllm"]', '[engines."a"] kind: Input should be'),
        ('[engines.a]\nmodel = "x"\nkind = "openvino"\nwindow = 0', '[engines."a"] window: Input should be greater'),
        ('[engines.a]\nurl = "http://a"\nkind = "vllm"\nwindow = 0', '[engines."a"] window: Input should be greater'),
        (
            '[engines.a]\nmodel = "x"\nkind = "openvino"\nurl = "http://a"',
            "[engines.\"a\"] has no key 'url'; it may have: kind, model",
        ),
        ("[limits]\nslow_seconds = 0", "[limits] slow_seconds: Input should be greater than 0"),
        ("[[public_prefixes]]", "[[public_prefixes]]: Value error, give messages, or a prompt"),
        (
            '[[public_prefixes]]\nprompt = "a"\nmessages = []',
            "[[public_prefixes]]: Value error, give messages, or a prompt",
        ),
        (
            '[[public_prefixes]]\nmessages = [{ role = "clerk", content = "a" }]',
            "[[public_prefixes]]: Value error, messages",
        ),
        (
            '[[public_prefixes]]\npromt = "a"',
            "[[public_prefixes]] has no key 'promt'; it may have: messages, tools, prompt",
        ),
        (
            '[[public_prefixes]]\nprompt = "a"\n[[public_prefixes]]\nmessages = 1\n[engine]',
            "[[public_prefixes]] messages: Input should be a valid list",
        ),
        ('[engines.a]\nkind = "vllm"', '[engines."a"] url: Field required'),
        (
            '[engines.a]\nkind = "vlm"\nurl = "http://a"',
            "[engines.\"a\"] kind: Input should be one of 'openai', 'parrot', 'vllm', 'sglang', 'llama.cpp', "
            "'transformers', 'ollama', 'ray', 'openvino'",
        ),
        ('[engines.a]\nurl = "http://a"', "[engines.\"a\"] kind: Input should be one of 'openai', "),
        ('[engines.a]\nkind = "vllm"\nurl = "http://a"\nreplicas = 1', "[engines.\"a\"] has no key 'replicas'; it"),
        ('[engines.a]\nkind = "ray"\nurl = "http://a"', "[engines.\"a\"] has no key 'url'; it may have: kind, address"),
        ('[engines.a]\nkind = "ray"\nreplicas = 0', '[engines."a"] replicas: Input should be greater than'),
        ('[engines.a]\nkind = "ray"\nreplicas = "3..2"', '[engines."a"] replicas: Value error, from 1 to'),
        ("[engines]\na = 1", '[engines."a"]: '),
        ("[server\n", "not valid TOML: "),
        (b"\xff", "not UTF-8"),
    ],
)
def test_a_fault_is_one_line_that_names_its_place(tmp_path, text, message):
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    said = str(caught.value)
    place, _, what = said.removeprefix(f"{tmp_path / 'parrot.toml'}:").partition(" ")
    assert what.startswith(message)
    assert place == ("" if message.startswith("not ") else f"{LINES.get(text, text.count(chr(10)) + 1)}:")
    assert "\n" not in said


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match="Is a directory"):
        read_config(tmp_path)


def test_remote_engines_on_the_command_line():
    found = remotes_of(["vllm=http://a:1/v1", "openai=https://b/v1"])
    assert {name: (remote.kind, remote.url) for name, remote in found.items()} == {
        "remote-0": ("vllm", "http://a:1/v1"),
        "remote-1": ("openai", "https://b/v1"),
    }
    assert merge(Config(), {"elsewhere": found}, set(), set()).natives == 0
    assert merge(Config(), {"elsewhere": found, "engines": 2}, set(), set()).natives == 2
    assert merge(Config(), {"elsewhere": found, "model": "x"}, set(), set()).natives == 1
    assert ServeOptions().natives == 1


@pytest.mark.parametrize("flag", ["http://a:1/v1", "vllm", "vlm=http://a", "vllm=a:1"])
def test_a_remote_engine_that_is_none(flag):
    with pytest.raises(ConfigError, match=r"KIND=URL.*KIND one of openai, parrot, vllm"):
        remotes_of([flag])


def test_a_ray_cluster_on_the_command_line():
    (section,) = ray_of("auto", "1..4").values()
    assert (section.address, bounds(section.replicas)) == ("auto", (1, 4))
    assert [bounds(ray_of("a:1", said)["ray"].replicas) for said in (None, "3")] == [(1, 1), (3, 3)]
    assert merge(Config(), {"elsewhere": {"ray": section}, "model": "x"}, set(), set()).natives == 0
    assert ray_of(None, None) == {}
    with pytest.raises(ConfigError, match="--replicas is of --ray ADDRESS"):
        ray_of(None, "2")
    for said in ("0", "4..2", "-1", "two", "1..", "1..99999"):
        with pytest.raises(ConfigError, match=r"it is N, or MIN\.\.MAX"):
            ray_of("auto", said)
