"""The native engine beside others on the same weights, prompts and cores, in one run.

    python benchmarks/engine.py [--only parrot vllm] [--quick] [--dtype bfloat16] [--json FILE]

`make peers` sets the others up; one that is missing, dies or answers another text is a row that says so. All are HTTP
servers with the same number of threads (OpenVINO GenAI in a process of its own without OpenAI's routes), measured in
turn, in another order each time, with prompts that no cache knows. docs/benchmarks-engine.md says what is measured.
`--show` measures nothing, prints the tables of a file, and writes them into that page if it is the default file.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from contextlib import suppress
from pathlib import Path

from engines import accuracy, ceilings, drive, model, results, shared, workloads
from engines.table import into, text
from peers import PEERS
from peers.home import home
from peers.peer import Setup

RESULTS = Path(__file__).parent / "results" / "engine-cpu.json"
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks-engine.md"
HERE = drive.Here.name
PARTS = ("shared", "accuracy")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    names = [*PEERS, HERE.replace(" ", "-"), *PARTS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="engines and parts")
    parser.add_argument("--dtype", nargs="+", choices=model.DTYPES, default=["bfloat16"], help="of the measured runs")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="two repetitions of everything")
    parser.add_argument("--tiny", action="store_true", help="a model of a million parameters: to try the benchmark")
    parser.add_argument("--json", type=Path, default=RESULTS, help=f"where to write ({RESULTS.name} in results/)")
    parser.add_argument("--show", action="store_true", help="measure nothing: the tables of the file as it is")
    args = parser.parse_args()
    if args.show:
        print(tables := text(json.loads(args.json.read_text())))
        if args.json == RESULTS:
            PAGE.write_text(into(PAGE.read_text(), tables))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    say = lambda line: print(line, file=sys.stderr, flush=True)  # noqa: E731
    kept = results.Results(args.json, machine=results.machine(args.threads))
    repeats = 2 if args.quick else args.repeats
    kept.data["settings"] = {"repeats": repeats, "tiny": args.tiny, "only": args.only, "dtype": args.dtype}
    try:
        measure(args, repeats, kept, say)
        kept.data["finished"] = True
    except KeyboardInterrupt:
        say("interrupted: what was measured until now is kept")
    finally:
        kept.save()
    with suppress(BrokenPipeError):
        print(text(kept.data))
    return 0 if kept.data["finished"] else 130


def measure(args: argparse.Namespace, repeats: int, kept: results.Results, say: drive.Say) -> None:
    shape = model.SMALL if args.tiny else model.SHAPE
    peers = [kind(home()) for name, kind in PEERS.items() if name in args.only]
    kept.data["ceilings"] = {"bytes_per_second": ceilings.memory_bandwidth(args.threads), "decode_bytes": {}}
    for dtype in model.DTYPES:  # fp32 first: there, texts are compared
        say(f"{dtype}: the model")
        setup = Setup(model.make(home(), dtype, shape=shape), dtype, args.threads)
        words: list[str] = json.loads((setup.checkpoint / "words.json").read_text())
        kept.data["ceilings"]["decode_bytes"][dtype] = model.decode_bytes(setup.checkpoint)
        if dtype == "float32" or dtype in args.dtype:
            with drive.started(peers, setup, kept, say) as engines:
                if HERE.replace(" ", "-") in args.only:
                    engines.append(drive.Here(setup, kv_tokens=16_384))
                if dtype == "float32":
                    drive.checked(engines, setup, words, kept, say)
                if dtype in args.dtype:
                    drive.measured(engines, workloads.WORKLOADS, setup, words, repeats, kept, say)
        if "shared" in args.only and dtype in args.dtype:
            shared.measured(setup, workloads.SHARED, words, repeats, kept, say)
        if "accuracy" in args.only:
            kept.data.setdefault("attention", []).extend(accuracy.measured(dtype))
    kept.data["ceilings"]["bytes_per_second"] = max(
        kept.data["ceilings"]["bytes_per_second"], ceilings.memory_bandwidth(args.threads)
    )


if __name__ == "__main__":
    sys.exit(main())
