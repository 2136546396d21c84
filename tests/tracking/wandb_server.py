"""A server that lets a W&B run begin, and then is gone; as a program it tracks a run with it.

python -m tests.tracking.wandb_server FOLDER
"""

import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_RUN = {
    "id": "1", "name": "abc", "displayName": "tiny", "config": "{}", "historyLineCount": 0,
    "project": {"id": "2", "name": "inq_ray", "entity": {"id": "3", "name": "me"}},
}  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    begun = threading.Event()

    def do_POST(self) -> None:
        question = self.rfile.read(int(self.headers.get("content-length") or 0))
        is_beginning = b"UpsertBucket" in question
        answer = {"upsertBucket": {"bucket": _RUN, "inserted": True}} if is_beginning else {}
        self._answer({"data": answer})
        if is_beginning:
            self.begun.set()

    def do_GET(self) -> None:
        self._answer({})

    def _answer(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


def main(folder: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ |= {"WANDB_API_KEY": "a" * 40, "WANDB_BASE_URL": f"http://127.0.0.1:{server.server_port}"}
    os.environ.pop("WANDB_MODE", None)

    from inq_ray.tracking import trackers as trackers_module
    from inq_ray.tracking import wandb
    from inq_ray.tracking.trackers import open_trackers
    from inq_ray.training.config.recipes import default_recipe
    from tests.tracking.rows import ROWS, SUMMARY

    wandb._START_SECONDS, wandb._FINISH_SECONDS = 300.0, 2.0
    trackers_module._LAST_WORDS_SECONDS = 300.0
    trackers = open_trackers(["wandb"], default_recipe("digits_cnn", 5), folder)
    assert _Handler.begun.wait(300.0)
    server.shutdown()
    server.server_close()
    for row in ROWS:
        trackers.report(row)
    trackers.close(SUMMARY)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
