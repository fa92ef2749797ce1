"""What is on the disk is what installs, and a client stays light."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]
PLACES = SETUPTOOLS["package-dir"]


def folder(package: str) -> Path:
    for name in sorted(PLACES, key=len, reverse=True):
        if package == name or package.startswith(name + "."):
            return ROOT / PLACES[name] / package[len(name) :].lstrip(".").replace(".", "/")
    raise AssertionError(f"{package} has no package-dir")


def test_every_folder_with_code_is_a_listed_package():
    # A package missing from the list works in an editable install and is absent from the wheel.
    listed = {folder(package) for package in SETUPTOOLS["packages"]}
    rooms = [ROOT / name for name in ("adapters", "core", "kernels", "server")]
    on_disk = {init.parent for room in rooms for init in room.rglob("__init__.py")}
    modules = {module.parent for room in rooms for module in room.rglob("*.py")}
    assert modules == on_disk
    assert {place for place in listed if place.is_relative_to(ROOT / "examples")} <= {ROOT / "examples" / "langchain"}
    assert {place for place in listed if not place.is_relative_to(ROOT / "examples")} == on_disk


def test_no_example_folder_is_a_package():
    # Its name would shadow the framework's.
    assert not list((ROOT / "examples").rglob("__init__.py"))


def test_every_room_is_typed_and_linked_for_the_type_checker():
    for room in ("adapters", "core", "kernels", "server"):
        assert (ROOT / room / "py.typed").exists()
        assert (ROOT / ".typing" / "semantic_parrot" / room).resolve() == ROOT / room


HEAVY = ("torch", "transformers", "fastapi", "uvicorn", "numpy", "re2")
LIGHT = [
    "semantic_parrot.core", "semantic_parrot.core.program", "semantic_parrot.core.wire", "semantic_parrot.core.errors",
    "semantic_parrot.core.events", "semantic_parrot.core.runtime", "semantic_parrot.core.demo_model",
    "semantic_parrot.adapters", "semantic_parrot.adapters.client", "semantic_parrot.adapters.embedded",
]  # fmt: skip


@pytest.mark.parametrize("module", LIGHT)
def test_a_client_loads_neither_torch_nor_a_web_framework(module):
    code = f"import sys, {module}; print([m for m in {HEAVY} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == "[]"


def test_the_langchain_adapter_loads_neither_torch_nor_fastapi():
    # numpy may come with LangChain itself.
    code = (
        "import sys, semantic_parrot.adapters.langchain; "
        "print([m for m in ('torch', 'transformers', 'fastapi', 'uvicorn') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == "[]"


def test_the_wheel_holds_every_package_and_the_demo_models_weights(tmp_path):
    import zipfile

    # The wheel is built from the source distribution, elsewhere: a build folder here would hide what is missing.
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, capture_output=True, check=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for package in SETUPTOOLS["packages"]:
        assert any(name.startswith(package.replace(".", "/") + "/") for name in names), package
    weights = "semantic_parrot/core/demo_model/weights/"
    assert {weights + "model.safetensors", weights + "config.json", weights + "tokenizer.json"} <= names
    assert "semantic_parrot/core/py.typed" in names
