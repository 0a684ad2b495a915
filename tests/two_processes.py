"""Runs one command in two processes of two devices each."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time

import jdml

ROOT = os.path.dirname(os.path.dirname(jdml.__file__))
_SECONDS = 300  # for all of it, on a busy machine


def together(command, kill_when=None):
    """Runs it twice at once; `command(port, index)` gives the arguments of Python.

    Args:
      command: as said.
      kill_when: a function without arguments; once it says true both are killed, at one moment.

    Returns:
      Exit codes, and (output, errors) of each process.
    """
    port = _free_port()
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    with contextlib.ExitStack() as stack:
        # Files, since a pipe that nobody reads stops the process that fills it.
        said = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(4)]
        running = [
            subprocess.Popen(
                [sys.executable, *command(port, index)],
                cwd=ROOT,
                env=environment,
                stdout=said[2 * index],
                stderr=said[2 * index + 1],
            )
            for index in range(2)
        ]
        try:
            _wait(running, kill_when or (lambda: False))
        finally:
            # Both stand still before either dies: else one may see the other's death and abort.
            for signed in (signal.SIGSTOP, signal.SIGKILL):
                for process in running:
                    process.send_signal(signed)  # nothing, where it has ended
            codes = [process.wait() for process in running]
        texts = [_text(file) for file in said]
    return codes, [(texts[0], texts[1]), (texts[2], texts[3])]


def _wait(running, enough):
    deadline = time.monotonic() + _SECONDS
    while any(process.poll() is None for process in running) and not enough():
        if time.monotonic() > deadline:
            raise TimeoutError(f"two processes ran for more than {_SECONDS} s")
        time.sleep(0.05)


def _free_port():
    """A port below those that the system gives to others' outgoing connections meanwhile."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as free:
            try:
                free.bind(("localhost", port))
            except OSError:
                continue
        return port


def _text(file):
    file.seek(0)
    return file.read()
