"""ComfyUI's API over HTTP, with the standard library only: queue a prompt, wait for it, fetch its pictures."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_POLL_SECONDS = 0.1


class PromptRejected(Exception):
    """ComfyUI refused the prompt before running it.

    Attributes:
        node_errors: {node id: {"class_type", "errors": [{"type", "message", "details", "extra_info"}]}}, as ComfyUI
            sends it; empty where the prompt as a whole is wrong.
    """

    def __init__(self, message: str, node_errors: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.node_errors = node_errors or {}


class PromptFailed(Exception):
    """A prompt was started and did not reach its end.

    Attributes:
        node_id: the node that raised, or None where it was not a node.
        message: what the node said.
        frames: of ComfyUI's traceback, the raising one last, for a developer.
        exception_type: full name of what was raised, such as "ValueError"; empty where nothing was.
    """

    def __init__(
        self,
        message: str,
        node_id: str | None = None,
        node_type: str = "",
        frames: Sequence[str] = (),
        exception_type: str = "",
    ) -> None:
        super().__init__(f"{node_type} (node {node_id}): {message}" if node_id else message)
        self.node_id = node_id
        self.message = message
        self.frames = tuple(frames)
        self.exception_type = exception_type

    @property
    def traceback(self) -> str:
        """The frames as one text."""
        return "".join(self.frames)


@dataclass(frozen=True)
class Result:
    """What a finished prompt gave.

    Attributes:
        images: {node id: PNG files as bytes}, saved pictures and previews.
        outputs: {node id: whatever the node showed}, as ComfyUI's history keeps it.
        seconds: time of execution at the server, without queueing and fetching.
    """

    images: dict[str, list[bytes]]
    outputs: dict[str, dict[str, Any]]
    seconds: float


@dataclass
class ComfyApi:
    """A client of one ComfyUI.

    Attributes:
        url: where it answers, "http://127.0.0.1:8188".
        client_id: the name under which prompts are queued.
    """

    url: str
    client_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def run(
        self,
        prompt: dict[str, Any],
        timeout: float = 600.0,
        on_progress: Callable[[float], None] | None = None,
        workflow: dict[str, Any] | None = None,
    ) -> Result:
        """Queue a prompt and wait for its result.

        Args:
            prompt: API format, {node id: {"class_type", "inputs"}}.
            timeout: seconds to wait before the prompt is stopped.
            on_progress: called about ten times a second with the seconds since queueing.
            workflow: the editor's form of it, saved into the pictures so that they open as a graph in the editor.

        Raises:
            PromptRejected: ComfyUI's validation found an error.
            PromptFailed: a node raised, the prompt was interrupted, or the time was up.
        """
        prompt_id = self._queue(prompt, workflow)
        started = time.monotonic()
        while True:
            entry = self.get_json(f"/history/{prompt_id}").get(prompt_id)
            if entry is not None and "status" in entry:
                return self._result(entry)
            elapsed = time.monotonic() - started
            if elapsed > timeout:
                self.cancel(prompt_id)
                raise PromptFailed(f"there was no result after {timeout:.0f} s, so the prompt was stopped")
            if on_progress:
                on_progress(elapsed)
            time.sleep(_POLL_SECONDS)

    def wait_for_new(self, known: Container[str], timeout: float = 600.0) -> dict[str, Any]:
        """Wait until a prompt has ended that somebody else has queued, such as a page of the editor.

        Args:
            known: ids of the prompts that the history had before.
            timeout: seconds.

        Returns:
            Its entry in the history.

        Raises:
            PromptFailed: the time was up.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for prompt_id, entry in self.get_json("/history").items():
                if prompt_id not in known:
                    return entry
            time.sleep(_POLL_SECONDS)
        raise PromptFailed(f"nothing was run within {timeout:.0f} s; the prompt may have been refused")

    def result_of_new(self, known: Container[str], timeout: float = 600.0) -> Result:
        """What such a prompt gave; takes and raises as `wait_for_new`, and PromptFailed where a node failed."""
        return self._result(self.wait_for_new(known, timeout))

    def object_info(self) -> dict[str, Any]:
        """Describe all nodes: {node type: {"input", "input_order", "output", "python_module", ...}}."""
        return self.get_json("/object_info")

    def free(self) -> None:
        """Ask for every model and every kept result to be let go of; it happens before the next prompt or after it."""
        self._post("/free", {"unload_models": True, "free_memory": True})

    def interrupt(self) -> None:
        """Stop the prompt that is running."""
        self._post("/interrupt", {})

    def cancel(self, prompt_id: str) -> None:
        """Take a prompt out of the queue, and stop it where it is already running."""
        self._post("/queue", {"delete": [prompt_id]})
        self._post("/interrupt", {"prompt_id": prompt_id})

    def upload(self, path: Path, name: str | None = None) -> str:
        """Put a picture into ComfyUI's input folder, in the place of one with the same name.

        Args:
            path: the picture.
            name: how LoadImage shall find it; None keeps the file's name.

        Returns:
            The value for LoadImage's input.
        """
        boundary = uuid.uuid4().hex
        name = name or path.name
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="overwrite"\r\n\r\ntrue\r\n'
            f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        body = head.encode() + path.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        answer = json.loads(self._request("/upload/image", body, f"multipart/form-data; boundary={boundary}"))
        return "/".join(part for part in (answer.get("subfolder"), answer["name"]) if part)

    def get_json(self, path: str) -> dict[str, Any]:
        """Read one of the API's JSON answers."""
        return json.loads(self._request(path))

    def _queue(self, prompt: dict[str, Any], workflow: dict[str, Any] | None) -> str:
        body: dict[str, Any] = {"prompt": prompt, "client_id": self.client_id}
        if workflow is not None:
            body["extra_data"] = {"extra_pnginfo": {"workflow": workflow}}
        try:
            answer = self._post("/prompt", body)
        except urllib.error.HTTPError as refusal:
            text = refusal.read().decode("utf-8", "replace")
            try:
                answer = json.loads(text)
            except ValueError:
                raise PromptRejected(f"ComfyUI answered {refusal.code} to the prompt: {text[:500]}") from None
            raise PromptRejected(_rejection_text(answer), answer.get("node_errors")) from None
        if answer.get("node_errors"):
            # ComfyUI runs the outputs that are right and leaves out the others; half a result is no result.
            self.cancel(answer["prompt_id"])
            raise PromptRejected(_rejection_text(answer), answer["node_errors"])
        return answer["prompt_id"]

    def _result(self, entry: dict[str, Any]) -> Result:
        messages = dict(entry["status"]["messages"])
        if "execution_error" in messages:
            error = messages["execution_error"]
            message = str(error["exception_message"]).strip()
            frames, kind = error["traceback"], error.get("exception_type", "")
            raise PromptFailed(message, str(error["node_id"]), error["node_type"], frames, kind)
        if entry["status"]["status_str"] != "success":
            raise PromptFailed("the prompt was interrupted")
        seconds = (messages["execution_success"]["timestamp"] - messages["execution_start"]["timestamp"]) / 1000
        images = {
            node: [self._request("/view?" + urllib.parse.urlencode(image)) for image in output["images"]]
            for node, output in entry["outputs"].items()
            if output.get("images")
        }
        return Result(images, entry["outputs"], seconds)

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self._request(path, json.dumps(body).encode(), "application/json")
        return json.loads(answer) if answer else {}

    def _request(self, path: str, body: bytes | None = None, content_type: str = "") -> bytes:
        request = urllib.request.Request(self.url + path, data=body)
        if content_type:
            request.add_header("Content-Type", content_type)
        # A proxy of the user's is for the outside world, not for this machine's own address.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=120) as answer:
            return answer.read()


def _rejection_text(answer: dict[str, Any]) -> str:
    """Write ComfyUI's validation errors as lines that name the node and the input."""
    lines = []
    for node_id, node in (answer.get("node_errors") or {}).items():
        for error in node["errors"]:
            details = f" ({error['details']})" if error.get("details") else ""
            lines.append(f"{node['class_type']} (node {node_id}): {error['message']}{details}")
    error = answer.get("error")
    if not lines and error:
        whole = error if isinstance(error, dict) else {"message": str(error)}
        lines.append(f"{whole['message']} {whole.get('details', '')}".strip())
    return "\n".join(lines) or "ComfyUI gave no reason"
