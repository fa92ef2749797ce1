"""A server that speaks OpenAI's protocol and nothing of ours, and says what the test wants."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from semantic_parrot.adapters.replay import to_json

Reply = bytes | tuple[int, dict[str, str], bytes]


def chat_completion(*, message: dict[str, Any] | None = None, delta: dict[str, Any] | None = None) -> dict[str, Any]:
    """A response with `message`, or the chunk of one with `delta`."""
    choice = {"index": 0, "finish_reason": "stop" if delta is None else None}
    choice |= {"message": message} if delta is None else {"delta": delta}
    kind = "chat.completion" if delta is None else "chat.completion.chunk"
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return {"id": "x", "object": kind, "created": 1, "model": "m", "choices": [choice], "usage": usage}


def says_hi(_: dict[str, Any]) -> Reply:
    return to_json(chat_completion(message={"role": "assistant", "content": "hi"}))


class PlainServer:
    """`answer(body)` gives the body of a response to a chat completion, or (status, headers, body). `seen` lists
    (path, headers, body) of what came."""

    def __init__(self, answer: Callable[[dict[str, Any]], Reply] = says_hi) -> None:
        self.seen: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                server.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                reply: Reply = (404, {}, to_json({"detail": "Not Found"}))
                if self.path.endswith("completions"):
                    reply = answer(body)
                status, headers, data = reply if isinstance(reply, tuple) else (200, {}, reply)
                kind = "text/event-stream" if body.get("stream") and status == 200 else "application/json"
                self.send_response(status)
                for name, value in {"content-type": kind, "content-length": str(len(data)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self._httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._httpd.server_address[1]}/v1"

    def __enter__(self) -> PlainServer:
        self._thread = threading.Thread(target=self._httpd.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._httpd.shutdown()
        self._thread.join()
        self._httpd.server_close()
