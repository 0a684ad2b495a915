"""Runs one command in two processes of two devices each."""

import os
import socket
import subprocess
import sys

import jdml

ROOT = os.path.dirname(os.path.dirname(jdml.__file__))


def together(command):
    """Runs it twice at once; `command(port, index)` gives the arguments of Python.

    Returns:
      Exit codes, and (output, errors) of each process.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    running = [
        subprocess.Popen(
            [sys.executable, *command(port, index)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    try:
        said = [process.communicate(timeout=300) for process in running]
    finally:
        for process in running:
            process.kill()
    return [process.returncode for process in running], said
