"""torchrun in docs/: its commands are understood, the SLURM script does what it says, the Kubernetes YAML is YAML."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest
import typer
import yaml

from fcos_cli.cli import app

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "distributed.md").read_text(encoding="utf-8")
TEXT = PAGE + (DOCS / "training.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^ *(?:exec |srun )?(torchrun --(?:.*\\\n)*.*)$", TEXT, re.MULTILINE)

TOOLS = {
    "srun": """trap 'kill -KILL $(cat step)' TERM
"$@" &
echo $! > step
wait $!""",
    "scancel": '[ "$*" = "--signal=TERM 7" ] && kill -TERM $(cat step)',
    "scontrol": 'case $1 in show) printf "node-a\\nnode-b\\n";; *) echo "$*" >> requeued;; esac',
    "torchrun": """echo "$*" >> started
trap 'echo state > runs/train/cells/state.pt; exit 1' TERM
mkdir -p runs/train/cells
[ -e runs/train/cells/state.pt ] && exit 0
echo ready > ready
while :; do sleep 0.02; done""",
}
"""Stand-ins for SLURM and torchrun. This run of two steps is told to stop in the first."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("command", COMMANDS)
def test_torchrun_commands_are_understood(command: str) -> None:
    from torch.distributed.run import get_args_parser

    command = command.replace("\\\n", " ").partition(" #")[0].removesuffix(" &")
    command = command.replace('"${COMMAND[@]}"', "fcos train --resume run").replace('"$@"', "/data --out run")
    words = shlex.split(re.sub(r"\$SLURM_NNODES|\$JOB_COMPLETION_INDEX", "1", command))
    found = get_args_parser().parse_args(words[1:])
    assert (found.no_python, found.training_script) == (True, "fcos")
    name, *arguments = found.training_script_args
    group = typer.main.get_command(app)
    context = group.make_context("fcos", [name], resilient_parsing=True)
    chosen = group.get_command(context, name)
    assert chosen is not None
    chosen.make_context(name, arguments, parent=context).close()


def test_every_torchrun_command_was_found() -> None:
    assert len(COMMANDS) == TEXT.count("--no-python") == 7


def test_the_slurm_script_is_stopped_requeued_and_resumed(tmp_path: Path) -> None:
    (script,) = blocks("bash")
    (tmp_path / "job.sh").write_text(script)
    (tmp_path / "bin").mkdir()
    for name, code in TOOLS.items():
        tool = tmp_path / "bin" / name
        tool.write_text(f"#!/bin/bash\n{code}\n")
        tool.chmod(0o755)
    facts = {"SLURM_JOB_ID": "7", "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "node-[a-b]", "SLURM_CPUS_PER_TASK": "8"}
    environ = {**os.environ, **facts, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    first = subprocess.Popen(["bash", "job.sh"], cwd=tmp_path, env=environ)
    deadline = time.monotonic() + 30
    while not (tmp_path / "ready").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    first.send_signal(signal.SIGUSR1)
    first.wait(timeout=30)
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"
    subprocess.run(["bash", "job.sh"], cwd=tmp_path, env=environ, timeout=30, check=True)
    new, again = (tmp_path / "started").read_text().splitlines()
    assert new.startswith("--nnodes 2 ")
    assert "--rdzv-endpoint node-a:29500 --no-python fcos train data/ --out runs/train/cells" in new
    assert again.endswith("--no-python fcos train --resume runs/train/cells")
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"


def test_the_kubernetes_job_fits_its_service() -> None:
    (text,) = blocks("yaml")
    service, job = yaml.safe_load_all(text)
    assert (service["kind"], job["kind"], job["apiVersion"]) == ("Service", "Job", "batch/v1")
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert spec["completionMode"] == "Indexed"
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    (container,) = pod["containers"]
    (script,) = container["args"]
    assert f"--nnodes {spec['completions']} " in script
    assert spec["parallelism"] == spec["completions"]
    assert f"--master-addr {job['metadata']['name']}-0.{pod['subdomain']} " in script
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    subprocess.run(["sh", "-n", "-c", script], check=True)
