"""OpenVINO GenAI's continuous batching behind one route. Runs in its own environment:

    python -P openvino_worker.py MODEL PORT THREADS PRECISION

GET anything: 200 once it is up. POST {"prompts", "tokens"}: all are run at once, greedily; times are of this machine's
monotonic clock, which the asking process has too.
"""

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import openvino_genai as genai


class Pipeline:
    def __init__(self, model, threads, precision):
        scheduler = genai.SchedulerConfig()
        scheduler.cache_size = 2  # GiB
        scheduler.max_num_seqs = 64
        scheduler.max_num_batched_tokens = 512
        scheduler.enable_prefix_caching = False
        options = {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": precision,
            "KV_CACHE_PRECISION": precision,
        }
        self._pipeline = genai.ContinuousBatchingPipeline(model, scheduler, "CPU", options)
        self._tokenizer = self._pipeline.get_tokenizer()
        self._ids = iter(range(1 << 30))

    def together(self, prompts, tokens):
        config = genai.GenerationConfig()
        config.max_new_tokens = config.min_new_tokens = tokens
        config.ignore_eos, config.do_sample, config.apply_chat_template = True, False, False
        sent = time.perf_counter()
        inputs = [self._tokenizer.encode(prompt, add_special_tokens=False).input_ids for prompt in prompts]
        handles = [self._pipeline.add_request(next(self._ids), ids, config) for ids in inputs]
        ids, chunks = [[] for _ in prompts], [[] for _ in prompts]
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
            now = time.perf_counter()
            for number, handle in enumerate(handles):
                while handle.can_read():
                    for output in handle.read().values():
                        ids[number] += output.generated_ids
                        chunks[number] += [now] * len(output.generated_ids)
        sizes = [int(part.shape[1]) for part in inputs]
        texts = [self._tokenizer.decode(found) for found in ids]
        answers = [
            {"text": text, "chunks": times, "prompt": size}
            for text, times, size in zip(texts, chunks, sizes, strict=True)
        ]
        return {"sent": sent, "answers": answers}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self._send({})

    def do_POST(self):
        self._send(self.server.pipeline.together(**json.loads(self.rfile.read(int(self.headers["Content-Length"])))))

    def _send(self, found):
        data = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def main():
    model, port, threads, precision = sys.argv[1:]
    server = HTTPServer(("127.0.0.1", int(port)), Handler, bind_and_activate=False)
    server.pipeline = Pipeline(model, int(threads), precision)
    server.server_bind()
    server.server_activate()
    server.serve_forever()


if __name__ == "__main__":
    main()
